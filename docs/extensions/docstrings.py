"""Docstrings are Markdown, like every other text here, and signatures show types as they are written in the source."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from docutils import nodes
from docutils.utils import new_document
from myst_parser.parsers.sphinx_ import MystParser
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

# The string of a shape, alone in its node: 'n d'.
SHAPE = re.compile(r"^'([\w\s.*+-]*)'$")


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
    """Leave out the fields of named tuples, which the class states."""
    return True if type(obj).__name__ == "_tuplegetter" else None


class Signatures(SphinxTransform):
    """Types in signatures as in the source: shapes in double quotes, and the short name of arrays."""

    default_priority = 740

    def apply(self, **kwargs: object) -> None:
        """Rewrite the signatures of a page."""
        for signature in self.document.findall(addnodes.desc_signature):
            for text in list(signature.findall(nodes.Text)):
                words = SHAPE.sub(r'"\1"', text.astext()).replace("jaxlib._jax.Array", "Array")
                if words != text.astext():
                    text.parent.replace(text, nodes.Text(words))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("markdown", Markdown)
    app.connect("autodoc-process-docstring", on_docstring)
    app.connect("autodoc-skip-member", on_member)
    app.add_transform(Signatures)
    return {"parallel_read_safe": True}
