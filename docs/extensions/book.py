"""Citations of the book become links: "theory, N.M" anywhere, and the plain numbers within the book."""

from __future__ import annotations

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

BOOK = "theory"
NUMBER = re.compile(r"(?<![\d.])[1-9]\.\d+\b")
# "theory, 4.5", "theory, 4.5 and 4.6", "theory, 2.2, 2.3 to 2.5", and whole chapters by one number.
CITATION = re.compile(r"\b[Tt]heory,\s+(?P<numbers>\d+(?:\.\d+)?(?:(?:\s*,\s*|\s+(?:and|to)\s+)\d+\.\d+)*)")
NUMBERED = re.compile(r"(\d+(?:\.\d+)?)\.? ")
NO_PROSE = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.reference, nodes.title)
NO_PROSE = (*NO_PROSE, addnodes.pending_xref, nodes.raw, nodes.comment, addnodes.desc_signature)


class Statements(SphinxTransform):
    """Statement N.M of the book is `#N.M` of its page, chapter N is `#N`, and both are labels for citations."""

    default_priority = 700

    def apply(self, **kwargs: object) -> None:
        """Name the sections of the book; leave other pages alone."""
        if self.env.docname != BOOK:
            return
        standard = self.env.domains.standard_domain
        for section in self.document.findall(nodes.section):
            title = section.next_node(nodes.title)
            if title is None or (match := NUMBERED.match(title.astext())) is None:
                continue
            number = match.group(1)
            section["ids"].append(number)
            standard.anonlabels[label(number)] = BOOK, number
            standard.labels[label(number)] = BOOK, number, title.astext()


class Citations(SphinxTransform):
    """Numbers of statements become references; one without its statement is a warning, and so an error."""

    default_priority = 710

    def apply(self, **kwargs: object) -> None:
        """Rewrite the prose of a page."""
        for parent in {id(text.parent): text.parent for text in self.document.findall(nodes.Text)}.values():
            if not within(parent, NO_PROSE):
                join_texts(parent)
                for text in [child for child in parent.children if isinstance(child, nodes.Text)]:
                    self.link(parent, text)

    def link(self, parent: nodes.Element, text: nodes.Text) -> None:
        """Replace a text by texts and references."""
        words, parts, done = text.astext(), [], 0
        for start, end in cited(words, inside_the_book=self.env.docname == BOOK):
            reference = addnodes.pending_xref(
                "", nodes.inline("", words[start:end]), refdomain="std", reftype="ref", refexplicit=True,
                reftarget=label(words[start:end]), refdoc=self.env.docname, refwarn=True,
            )  # fmt: skip
            reference.source, reference.line = self.document["source"], nearest_line(parent)
            parts += [nodes.Text(words[done:start]), reference]
            done = end
        if parts:
            parent.replace(text, [*parts, nodes.Text(words[done:])])


def label(number: str) -> str:
    """The name by which the pages refer to a statement or chapter."""
    return f"theory-{number}"


def cited(words: str, *, inside_the_book: bool) -> Iterator[tuple[int, int]]:
    """Where the numbers of statements stand in a text."""
    if inside_the_book:
        yield from (match.span() for match in NUMBER.finditer(words))
        return
    for citation in CITATION.finditer(words):
        offset = citation.start("numbers")
        for number in re.finditer(r"\d+(?:\.\d+)?", citation["numbers"]):
            yield offset + number.start(), offset + number.end()


def within(node: nodes.Node | None, kinds: tuple[type, ...]) -> bool:
    """Whether a node or one around it is of these kinds."""
    while node is not None:
        if isinstance(node, kinds):
            return True
        node = node.parent
    return False


def join_texts(parent: nodes.Element) -> None:
    """Lines of a paragraph are texts of their own, and a citation may wrap."""
    joined: list[nodes.Node] = []
    for child in parent.children:
        if joined and isinstance(child, nodes.Text) and isinstance(joined[-1], nodes.Text):
            joined[-1] = nodes.Text(joined[-1].astext() + child.astext())
        else:
            joined.append(child)
    parent.children = []
    parent.extend(joined)


def nearest_line(node: nodes.Node | None) -> int | None:
    """Where in its file a node stands, as far as that is known."""
    while node is not None and node.line is None:
        node = node.parent
    return node.line if node else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_transform(Statements)
    app.add_transform(Citations)
    return {"parallel_read_safe": False}
