"""Tutorials are text notebooks: in a short form for CI, and offered for download as they were executed.

A code cell tagged "short" is left out of the site; with DOCS_SHORT=1 in the environment it is run, to overwrite the
sizes of the cell before it with smaller ones.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
PACKAGES = ("ufm", "ufm_check", "solvers", "networks", "experiments", "figures")
OPTIONS = r"(?::[^\n]*\n)*:tags:[^\n]*\bshort\b"
SHORT_CELL = re.compile(rf"^```\{{code-cell\}}[^\n]*\n(?={OPTIONS}).*?^```\n", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^(# .+\n)", re.MULTILINE)


def sources() -> list[Path]:
    """The code that a tutorial runs."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def digest() -> str:
    """Of that code: what was executed with other code is executed again."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources())).hexdigest()[:16]


def without_short_cells(text: str) -> str:
    """A text notebook as the site shows it."""
    return SHORT_CELL.sub("", text)


def with_download(text: str, name: str) -> str:
    """A text notebook whose first heading is followed by a link to what was executed."""
    link = f"{{nb-download}}`Download this page as a notebook <{name}.ipynb>`."
    return HEADING.sub(rf"\1\n{link}\n", text, count=1)


def on_source_read(app: Sphinx, docname: str, source: list[str]) -> None:
    """What the reader of a page meets in the place of its file."""
    page = PurePosixPath(docname)
    if page.parent.name != "tutorials" or page.name == "index":
        return
    if os.environ.get("DOCS_SHORT") != "1":
        source[0] = without_short_cells(source[0])
    source[0] = with_download(source[0], page.name)
    for path in sources():
        app.env.note_dependency(str(path))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", on_source_read)
    return {"parallel_read_safe": True}
