"""Docstrings are Markdown, like every other text here, and signatures show types as they are written in the source."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from docutils import nodes
from docutils.utils import new_document
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

# "n d" in Float[Array, 'n d'].
SHAPE = re.compile(r"(?<=, )'([\w\s.*+-]*)'(?=\])")


class Markdown(SphinxDirective):
    """Its content is parsed as Markdown, on a page of any kind."""

    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """The nodes of the content."""
        document = new_document(self.state.document["source"], self.state.document.settings)
        MystParser().parse("\n".join(self.content), document)
        return document.children


def on_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Hand a docstring to the directive above."""
    if any(lines):
        lines[:] = [".. markdown::", "", *(f"   {line}" for line in lines), ""]


def on_member(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Fields of named tuples are stated by their class."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def on_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Shapes in double quotes, as in the source."""
    return signature and re.sub(SHAPE, r'"\1"', signature), returns and re.sub(SHAPE, r'"\1"', returns)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("markdown", Markdown)
    app.connect("autodoc-process-docstring", on_docstring)
    app.connect("autodoc-skip-member", on_member)
    app.connect("autodoc-process-signature", on_signature)
    return {"parallel_read_safe": True}
