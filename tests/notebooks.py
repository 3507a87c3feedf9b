"""Text notebooks and pages as plain code: what a test may read and execute."""

import ast
import re

CELL = re.compile(r"^```\{code-cell\}[^\n]*\n((?::[^\n]*\n)*)(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCE = r"^```{language}\n(.*?)^```$"


def cells(text, *, short):
    """The code cells of a text notebook, in order; those tagged "short" only if asked for."""
    return [code for options, code in CELL.findall(text) if short or "short" not in options]


def fenced(text, language):
    """The blocks of a page in one language."""
    return re.findall(FENCE.format(language=language), text, re.DOTALL | re.MULTILINE)


def ends_in_a_check(code):
    """Whether the last statement of a cell is an assertion, alone or of every turn of a loop."""
    last = ast.parse(code).body[-1]
    return isinstance(last.body[-1] if isinstance(last, ast.For) else last, ast.Assert)


def execute(parts, name):
    """Run the parts in one namespace, as a kernel would: the value of a last expression is shown, so it must print."""
    space = {"__name__": name}
    for number, code in enumerate(parts):
        tree, where = ast.parse(code), f"{name}[{number}]"
        shown = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, where, "exec"), space)
        if shown is not None:
            repr(eval(compile(shown, where, "eval"), space))
