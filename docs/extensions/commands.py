"""The --help of each command, for the site."""

from __future__ import annotations

import importlib
import io
import os
import sys
import tomllib
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
WIDTH = 80


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
    """The help of a command, as on a terminal of this width."""
    said = io.StringIO()
    with patch.object(sys, "argv", [name]), patch.dict(os.environ, COLUMNS=str(WIDTH)), redirect_stdout(said):
        try:
            importlib.import_module(module).main(["--help"])
        except SystemExit as stop:
            if stop.code != 0:
                raise
    return "\n".join(line.rstrip() for line in said.getvalue().strip().splitlines())


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
