"""What is named in code becomes a link: `ufm.scl_loss` into the API, a file of the repository to its page."""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from extensions.book import within

ROOT = Path(__file__).parents[2]
# Files outside of docs that are pages all the same; each has a page in docs that includes it.
PAGES = {
    "CHANGELOG": "changelog",
    "CONTRIBUTING": "contributing",
    "README": "index",
    "figures/gallery/README": "gallery",
    "proofs/README": "proofs",
}
NAME = re.compile(r"((?:ufm|solvers|networks|figures|experiments)(?:\.\w+)+)(?:\(.*\))?", re.DOTALL)
PACKAGES = ("ufm", "solvers", "networks", "figures")


@functools.cache
def public_names() -> dict[str, str]:
    """Where a public name is defined, by the name under which the API has it."""
    names = {}
    for package in map(importlib.import_module, PACKAGES):
        for name in package.__all__:
            thing = getattr(package, name)
            home = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"
            names[home] = f"{package.__name__}.{name}"
    return names


class Names(SphinxTransform):
    """Literals that name an object of the packages refer to it, where the API has it."""

    default_priority = 720

    def apply(self, **kwargs: object) -> None:
        """Rewrite the literals of a page."""
        for literal in list(self.document.findall(nodes.literal)):
            match = NAME.fullmatch(literal.astext())
            if match and not within(literal.parent, (nodes.reference, addnodes.pending_xref, nodes.title)):
                target = public_names().get(match[1], match[1])
                reference = addnodes.pending_xref(
                    "", literal.deepcopy(), refdomain="py", reftype="obj", refexplicit=True, reftarget=target,
                    refdoc=self.env.docname, refwarn=False,
                )  # fmt: skip
                literal.replace_self(reference)


class Files(SphinxTransform):
    """Links to Markdown files outside of docs, and within what pages include, lead to the pages of those files."""

    default_priority = 730

    def apply(self, **kwargs: object) -> None:
        """Rewrite the references of a page that the Markdown parser left pending."""
        for reference in self.document.findall(addnodes.pending_xref):
            if reference["reftype"] == "myst":
                file, _, anchor = reference["reftarget"].removeprefix(f"{ROOT}/").partition("#")
                name = file.removesuffix(".md")
                page = PAGES.get(name, name.removeprefix("docs/") if name.startswith("docs/") else None)
                if page is not None:
                    reference.attributes |= {"refdomain": "doc", "reftarget": page}
                    reference.attributes.setdefault("reftargetid", anchor or None)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_transform(Names)
    app.add_transform(Files)
    return {"parallel_read_safe": True}
