"""Text notebooks and pages as plain code: what a test may execute."""

import re

CELL = re.compile(r"^```\{code-cell\}[^\n]*\n((?::[^\n]*\n)*)(.*?)^```$", re.DOTALL | re.MULTILINE)
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def cells(text, *, short):
    """The code cells of a text notebook, in order; those tagged "short" only if asked for."""
    return [code for options, code in CELL.findall(text) if short or "short" not in options]


def snippets(text):
    """The Python of a page."""
    return SNIPPET.findall(text)


def ended_in_a_check(code):
    """Whether the last statement of a cell is an assertion."""
    return bool(re.search(r"^(?:    )?assert .*\Z", code.strip(), re.MULTILINE)) or code.strip().splitlines()[-1].lstrip().startswith("assert")


def execute(parts, name):
    """Run the parts in one namespace, as a kernel would: the value of a last expression is shown, so it must print."""
    import ast

    space = {"__name__": name}
    for number, code in enumerate(parts):
        tree = ast.parse(code)
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            tree.body.pop()
            exec(compile(tree, f"{name}[{number}]", "exec"), space)
            shown = eval(compile(ast.Expression(last.value), f"{name}[{number}]", "eval"), space)
            repr(shown)
        else:
            exec(compile(tree, f"{name}[{number}]", "exec"), space)
    return space
