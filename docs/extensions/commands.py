"""The site shows what every console command prints with --help."""

from __future__ import annotations

import importlib
import io
import os
import sys
import textwrap
import tomllib
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
WIDTH = 92
FIRST_OPTION = "show this help message"


class CommandHelp(SphinxDirective):
    """One section for every console command of the package that knows --help."""

    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Sections, each with both names of the command and its help."""
        scripts = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["scripts"]
        self.env.note_dependency(str(PYPROJECT))
        modules = {name: target.partition(":")[0] for name, target in scripts.items()}
        return [self.section(name, module) for name, module in modules.items() if module.startswith("experiments.")]

    def section(self, name: str, module: str) -> nodes.section:
        """One command."""
        section = nodes.section("", nodes.title(name, name), ids=[name], names=[name])
        command = nodes.literal_block("", f"{name}\npython -m {module}", language="bash")
        text = nodes.literal_block("", help_of(name, module), language="text", classes=["help"])
        section += [command, text]
        self.env.note_dependency(str(importlib.import_module(module).__file__))
        return section


def help_of(name: str, module: str) -> str:
    """The help of a command, as on a terminal of WIDTH columns, with every paragraph filled to that width."""
    printed = io.StringIO()
    with patch.object(sys, "argv", [name]), patch.dict(os.environ, COLUMNS=str(WIDTH)), redirect_stdout(printed):
        try:
            importlib.import_module(module).main(["--help"])
        except SystemExit as stop:
            if stop.code != 0:
                raise
    return filled(printed.getvalue().strip())


def filled(text: str) -> str:
    """The text of a command's help with its paragraphs and its option texts filled to WIDTH columns.

    The parser keeps some line breaks of the docstrings and drops others. Consecutive lines of one paragraph, or of the
    text of one option, are joined; all other lines, such as examples, stay as they are.
    """
    column = max(line.find(FIRST_OPTION) for line in text.splitlines())  # where the texts of the options begin
    lines: list[str] = []
    filling: int | None = None  # the column that the next line of the same text begins at
    for line in map(str.rstrip, text.splitlines()):
        content, begins = line.strip(), len(line) - len(line.lstrip())
        if not content and lines and not lines[-1]:
            continue
        if content and begins == filling:
            lines[-1] += f" {content}"
            continue
        lines.append(line)
        has_text = line.startswith("  -") and line[column - 1 : column] == " "
        filling = column if has_text or begins == column else 0 if content and begins == 0 else None
    return "\n".join(wrapped for line in lines for wrapped in _wrapped(line, column))


def _wrapped(line: str, column: int) -> list[str]:
    """One line as lines of at most WIDTH columns; those of an option's text begin at a column."""
    if len(line) <= WIDTH:
        return [line]
    head = line[:column] if line.startswith("  -") or not line[:column].strip() else ""
    if line.startswith(" ") and not head:
        return [line]
    return textwrap.wrap(
        line[len(head) :], WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
