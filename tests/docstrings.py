"""What the docstring of a public name must state, found in the source: shapes, scale, errors."""

import ast
import functools
import importlib
import inspect
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("ufm", "solvers", "networks", "figures")
MAKERS = ("__init__", "__post_init__", "__check_init__", "__new__")
SCALED = re.compile(r"loss|excess|gap|(lower|upper)_bound|suboptimality")
SCALE = re.compile(r"\b(sums?|summed|means?)\b", re.IGNORECASE)
ERRORS = re.compile(r"Raises\s+InvalidInput")
# "(n, d)", "(k,)", "(m x m)", "in R^d", "a scalar", "one number a class", "the label of each point".
NOUN = r"(sample|point|class|row|batch|start|anchor|pair|orbit|component|image|line|step)"
SHAPE = re.compile(rf"\([\w\s+*-]+(,| x )[\w\s,+*-]*\)|\bR\^|\bscalar\b|\b(a|each|every|per) {NOUN}\b")


class Tree:
    """The functions and classes of the packages by dotted name, and what each may raise."""

    def __init__(self, sources):
        self.defined, self.names = {}, {}
        for module, text in sources.items():
            tree = ast.parse(text)
            self.names[module] = dict(imports(tree))
            for node in tree.body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    self.define(module, node.name, node)

    def define(self, module, name, node):
        self.defined[module, name] = node
        self.names[module].setdefault(name, (module, name))
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    self.defined[module, f"{name}.{part.name}"] = part

    @functools.cached_property
    def raising(self):
        """Functions and classes that InvalidInput leaves: raised there, or in what they call by name."""
        calls = {key: set(self.calls(*key)) for key in self.defined}
        result = {key for key, node in self.defined.items() if raised_in(node)}
        while more := {key for key, called in calls.items() if called & result} - result:
            result |= more
        return result

    def calls(self, module, name):
        """What a function calls by name; the making of a class calls its methods that make it."""
        node = self.defined[module, name]
        if isinstance(node, ast.ClassDef):
            yield from ((module, f"{name}.{maker}") for maker in MAKERS if (module, f"{name}.{maker}") in self.defined)
        else:
            parts = (part for part in uncaught(node.body) if isinstance(part, ast.Call))
            yield from filter(None, (self.called(part.func, module, name) for part in parts))

    def called(self, function, module, name):
        """(module, name) of what an expression calls, if a name of the packages."""
        match function:
            case ast.Name(id=own):
                return self.home(module, own)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=method):
                return module, f"{name.split('.')[0]}.{method}"
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                return self.member(self.home(module, owner), attribute)

    def member(self, owner, attribute):
        if owner is None:
            return None
        module, name = owner
        if (module, name) in self.defined:
            return module, f"{name}.{attribute}"
        inside = f"{module}.{name}" if name else module
        return self.home(inside, attribute) if inside in self.names else None

    def home(self, module, name):
        """Where what a module calls by this name is defined."""
        seen = set()
        while (module, name) not in self.defined and (module, name) not in seen:
            seen.add((module, name))
            result = self.names.get(module, {}).get(name)
            if result is None:
                return (module, name) if f"{module}.{name}" in self.names else None
            module, name = result
            if f"{module}.{name}" in self.names:
                return module, name
        return module, name


def imports(tree):
    """Names that a module imports: (name there, (module, name))."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.asname or alias.name, (node.module, alias.name)) for alias in node.names)


def uncaught(body):
    """All nodes of some statements, but for what a `try` that catches InvalidInput, or every ValueError, surrounds."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.Try) and any(catches(handler) for handler in statement.handlers):
            children = [*statement.handlers, *statement.orelse, *statement.finalbody]
        elif isinstance(statement, ast.With) and "suppress(InvalidInput)" in map(ast.unparse, statement.items):
            children = []
        else:
            children = list(ast.iter_child_nodes(statement))
        yield from uncaught(children)


def raised_in(node):
    """Whether a function itself raises InvalidInput."""
    parts = uncaught(node.body) if isinstance(node, ast.FunctionDef) else ()
    return any(isinstance(part, ast.Raise) and "InvalidInput" in ast.unparse(part) for part in parts)


def catches(handler):
    return handler.type is None or bool(re.search(r"InvalidInput|ValueError|Exception", ast.unparse(handler.type)))


@functools.cache
def packages():
    paths = [path for room in PACKAGES for path in (ROOT / room).rglob("*.py")]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    return Tree({names[path]: path.read_text(encoding="utf-8") for path in paths})


def public_modules():
    """Modules that a package lists among its names: they are public as a whole."""
    packages = map(importlib.import_module, PACKAGES)
    things = [getattr(package, name) for package in packages for name in package.__all__]
    return [thing.__name__ for thing in things if inspect.ismodule(thing)]


def public_names():
    """Every public function, class and method: its name, its object, the class around it; former names apart."""
    for name, thing, owner in _listed():
        if not (thing.__doc__ or "").startswith("The former name of"):
            yield name, thing, owner


def _listed():
    for module in (*PACKAGES, *public_modules()):
        package = importlib.import_module(module)
        listed = getattr(package, "__all__", None) or [
            name for name, thing in vars(package).items()
            if not name.startswith("_") and getattr(thing, "__module__", None) == module
        ]  # fmt: skip
        for name in listed:
            thing = getattr(package, name)
            if inspect.isclass(thing) or inspect.isroutine(thing):
                yield f"{module}.{name}", thing, None
            if inspect.isclass(thing):
                yield from methods(f"{module}.{name}", thing)


def methods(name, owner):
    for attribute, thing in vars(owner).items():
        thing = getattr(thing, "__func__", thing)
        if not attribute.startswith("_") and (inspect.isfunction(thing) or isinstance(thing, property)):
            yield f"{name}.{attribute}", thing, owner


def faults(thing, owner, tree):
    """What the docstring of a public thing does not state, in words."""
    said = inspect.cleandoc(thing.__doc__ or "")
    if not said or said.startswith(f"{getattr(thing, '__name__', '')}("):
        return ["no docstring"]
    # A method that overrides another adds to what that states.
    bases = [vars(base).get(getattr(thing, "__name__", "")) for base in owner.__mro__[1:]] if owner else []
    said = "\n\n".join([said, *(inspect.cleandoc(base.__doc__ or "") for base in bases if base is not None)])
    around = f"{said}\n\n{owner.__doc__ or ''}"
    function = thing.fget if isinstance(thing, property) else inspect.unwrap(thing)
    module, name = function.__module__, function.__qualname__
    wrong = [f"no shape of {array}" for array in arrays(function) if not states_shape(array, around)]
    errors = said + (thing.__init__.__doc__ or "") if inspect.isclass(thing) else said
    if takes_input(thing, function) and (module, name) in tree.raising and not ERRORS.search(errors):
        wrong.append("does not say that it raises InvalidInput")
    if SCALED.search(scaled(thing, function)) and not (SCALE.search(around) and re.search(r"\btau\b", around)):
        wrong.append("names a loss, not its scale (sum or mean, tau)")
    return wrong


def takes_input(thing, function):
    """Whether a caller gives anything that could be bad."""
    return inspect.isclass(thing) or bool(set(inspect.signature(function).parameters) - {"self", "cls"})


def scaled(thing, function):
    """The words by which a loss would be given back: the name, and the fields of a class."""
    if inspect.isclass(thing):
        return " ".join(vars(thing).get("__annotations__", {}))
    return "" if inspect.signature(function).return_annotation in ("bool", bool) else function.__name__


def arrays(function):
    """Parameters, fields and "the result" whose types are arrays without a shape."""
    if inspect.isclass(function):
        annotated = dict(vars(function).get("__annotations__", {}))
        if "__init__" in vars(function) and "__dataclass_fields__" in vars(function):
            annotated |= getattr(function.__init__, "__annotations__", {})
    else:
        annotated = dict(function.__annotations__)
    for name, kind in annotated.items():
        text = kind if isinstance(kind, str) else inspect.formatannotation(kind)
        bare = re.sub(r"""\b\w+\[[^"']*["'][^"']*["']\]""", "", text)
        if re.search(r"\b(Array|ndarray|ArrayLike)\b", bare):
            yield "the result" if name == "return" else name


def states_shape(name, said):
    """Whether the item or sentence that names an array states its shape."""
    if name == "the result":
        return bool(SHAPE.search(said))
    items = re.split(r"\n- |\n\n|(?<=[a-z\)])[.;]\s", said)
    return any(re.search(rf"\b{re.escape(name)}\b", item) and SHAPE.search(item) for item in items)
