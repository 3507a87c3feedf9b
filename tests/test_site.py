"""The sources of the site, and the checks of the built one, whose every rule meets a planted fault."""

import re
import tomllib
from pathlib import Path

import pytest

import ufm
from tests import site_checks

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
TEXTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "proofs/README.md",
    ROOT / "figures/gallery/README.md",
]


def slugs(text):
    """The anchors of a Markdown file, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_text_lead_somewhere_and_images_have_words(path):
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    wrong = []
    for image, words, target in LINK.findall(text):
        file, _, anchor = target.partition("#")
        place = path.parent / file if file else path
        if target.startswith(("http://", "https://")):
            continue
        if image and len(words.split()) < 3:
            wrong.append(f"{target}: no words for who does not see it")
        if not place.exists():
            wrong.append(f"{target}: no such file")
        elif anchor and anchor not in slugs(place.read_text(encoding="utf-8")):
            wrong.append(f"{target}: no such heading")
    assert wrong == []


def test_the_readme_is_short_and_its_commands_come_first():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    assert len(re.findall(r"!\[", text)) <= 3
    first = text.split("\n## ")[0]
    markers = re.findall(r"^<!-- ci: (\w+) -->\n```bash\n(.+)\n```$", first, re.MULTILINE)
    assert [name for name, _ in markers] == ["main", "tests", "docs"]
    assert all(command.startswith("python3 -m venv .venv && ") for _, command in markers)


def entries(index):
    """The pages that the navigation lists on an index page."""
    for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", index.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in tree.splitlines():
            entry = re.sub(r"^.*<(.+)>$", r"\1", line.strip())
            if entry and not entry.startswith(":"):
                yield from index.parent.glob(f"{entry}.md") if "*" in entry else [index.parent / f"{entry}.md"]


def test_every_page_is_in_the_navigation():
    docs = ROOT / "docs"
    listed = {docs / "index.md", *(page for index in docs.rglob("index.md") for page in entries(index))}
    assert set(docs.rglob("*.md")) == listed


def test_versions_of_the_release_agree():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [ufm.__version__]
    assert (
        re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1] == ufm.__version__
    )


def test_what_the_extras_ask_for_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {name(line) for line in (ROOT / "requirements/known-good.txt").read_text().splitlines() if "==" in line}
    wanted = [
        *project["dependencies"],
        *(x for extra in ("test", "dev", "docs", "dask") for x in project["optional-dependencies"][extra]),
    ]
    assert {name(requirement) for requirement in wanted} - {"ufm-scl"} <= pinned


def name(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")


def test_every_extra_says_what_it_gives():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = project.split("[project.optional-dependencies]\n")[1].split("\n[tool")[0]
    extras = re.findall(r"^(\w+) = \[", block, re.MULTILINE)
    assert re.findall(r"^# .+\n(\w+) = \[", block, re.MULTILINE) == extras
    page = (ROOT / "docs/how_do_i/install_with_extras.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \| \w", page, re.MULTILINE)) == set(extras)


GOOD = '<html lang="en"><main><h1 id="a">A</h1><a href="b.html#x">b</a><img src="i.png" alt="three words here"></main>'


@pytest.mark.parametrize(
    ("page", "faults"),
    [
        (GOOD, []),
        (GOOD.replace("#x", "#y"), ["b.html#y"]),
        (GOOD.replace("b.html", "c.html"), ["c.html#x"]),
        (GOOD.replace("i.png", "j.png"), ["j.png"]),
        (GOOD.replace("i.png", "https://elsewhere.org/i.png"), ["https://elsewhere.org/i.png"]),
        (GOOD + '<script src="//cdn.org/x.js"></script>', ["//cdn.org/x.js"]),
        (GOOD + '<link rel="stylesheet" href="https://fonts.org/f.css">', ["https://fonts.org/f.css"]),
        (GOOD + '<a href="#nowhere">x</a>', ["#nowhere"]),
    ],
)
def test_a_broken_link_or_a_file_from_elsewhere_is_found(tmp_path, page, faults):
    (tmp_path / "a.html").write_text(page)
    (tmp_path / "b.html").write_text('<p id="x">')
    (tmp_path / "i.png").write_bytes(b"")
    assert site_checks.broken_links(tmp_path).get("a.html", []) == faults


@pytest.mark.parametrize(
    ("words", "is_tex"),
    [("cosine 1/tau", False), (r"\tau > 0", True), (r"\(x\)", True), ("for $n_c$ samples", True), ("costs $5", False)],
)
def test_raw_tex_is_found(words, is_tex):
    assert bool(site_checks.RAW_TEX.search(words)) is is_tex


def test_a_citation_that_is_no_link_is_found(tmp_path):
    (tmp_path / "theory.html").write_text('<a href="#1.1">1.1</a><a href="#1.2">1.2</a><h3 id="1.1">1.1 A</h3>')
    (tmp_path / "a.html").write_text("<p>(theory, 4.5)</p><p>(theory, <a>4.5</a>)</p><code>theory, 4.5</code>")
    assert site_checks.uncited(tmp_path) == ["1.2", "a.html: theory, 4.5"]
