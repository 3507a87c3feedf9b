"""Tutorials and recipes run as they stand, and the commands on the pages are such that the command line takes."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from notebooks import cells, ends_in_a_check, execute, fenced
from PIL import Image

from experiments.harness import command_line

DOCS = Path(__file__).parents[1] / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("[0-9]*.md"))
PAGES = [DOCS / "start.md", *sorted(path for path in (DOCS / "how_do_i").glob("*.md") if path.stem != "index")]
QUICK = "4_certificate"  # it needs no solver


def named(paths):
    return {"argvalues": paths, "ids": [path.stem for path in paths]}


def all_but_quick(paths, quick):
    """The others compile a solver, half a minute each."""
    return [pytest.param(path, id=path.stem, marks=[] if quick(path) else pytest.mark.slow) for path in paths]


def test_there_are_seven_tutorials_and_the_recipes():
    assert [path.stem[0] for path in TUTORIALS] == list("1234567")
    assert len(PAGES) >= 12


@pytest.mark.parametrize("path", **named(TUTORIALS))
def test_a_tutorial_ends_in_a_check(path):
    text = path.read_text()
    assert text.startswith("---\njupytext:\n")
    assert ends_in_a_check(cells(text, short=False)[-1])
    assert "## Check" in text
    for short in (False, True):
        for code in cells(text, short=short):
            compile(code, path.name, "exec")


def test_what_is_no_check_is_told():
    assert ends_in_a_check("for x in y:\n    assert x\n")
    assert not ends_in_a_check("assert x\nprint(x)\n")


def test_short_cells_are_left_out_of_the_long_form():
    text = "```{code-cell} ipython3\na\n```\n\n```{code-cell} ipython3\n:tags: [short]\nb\n```\n"
    assert cells(text, short=False) == ["a\n"]
    assert cells(text, short=True) == ["a\n", "b\n"]


@pytest.mark.parametrize("path", all_but_quick(TUTORIALS, lambda path: path.stem == QUICK))
def test_a_tutorial_runs_in_its_short_form(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    execute(cells(path.read_text(), short=True), path.stem)


@pytest.mark.parametrize("path", all_but_quick(PAGES, lambda path: "solvers.solve(" not in path.read_text()))
def test_the_python_of_a_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    execute(fenced(path.read_text(), "python"), path.stem)


def commands():
    """Every experiment that a page runs, by module and arguments."""
    for path in [*PAGES, DOCS / "comparison.md"]:
        for block in fenced(path.read_text(), "bash"):
            for line in block.splitlines():
                match = re.search(r"python -m (experiments\.\w+)(.*)", line)
                if match:
                    yield pytest.param(match[1], shlex.split(match[2]), id=f"{path.stem}: {match[0]}")


@pytest.mark.parametrize(("module", "arguments"), list(commands()))
def test_the_command_line_takes_a_command_of_a_page(module, arguments):
    command_line.parse(importlib.import_module(module).Config, arguments)


@pytest.mark.parametrize("path", **named([*PAGES, *TUTORIALS, DOCS / "comparison.md"]))
def test_links_between_pages_lead_somewhere(path):
    made = {DOCS / "gallery.md", DOCS / "proofs.md", DOCS / "how_do_i" / "index.md"}  # pages of the site's frame
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        assert text
        if not target.startswith("https://"):
            assert (path.parent / target).resolve() in made or (path.parent / target).is_file(), target


def test_the_animation_is_small_and_moves():
    with Image.open(DOCS / "images" / "octant.gif") as animation:
        assert animation.n_frames > 50
        assert "loop" in animation.info
    assert (DOCS / "images" / "octant.gif").stat().st_size < 1_500_000
    assert (DOCS / "images" / "octant.png").stat().st_size < 300_000


CELL = re.compile(r"(?ms)^```(?:\{code-cell\}[^\n]*|python)\n(.*?)^```$")
NARROW_PAGES = sorted([*DOCS.glob("tutorials/*.md"), *DOCS.glob("how_do_i/*.md"), DOCS / "start.md"])


@pytest.mark.parametrize("path", NARROW_PAGES, ids=lambda path: path.stem)
def test_code_fits_the_page(path):
    """80 columns: the site shows them without scrolling at 1280 pixels."""
    lines = [line for cell in CELL.findall(path.read_text()) for line in cell.splitlines()]
    assert [line for line in lines if len(line) > 80] == []
