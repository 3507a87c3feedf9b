"""Every page of the site, built in its short form and opened in Chromium; collected where both are installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import site_checks
from tests.browser import Chromium

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """UFM_SCL_SITE, if it names a built site; else one is built here."""
    if built := os.environ.get("UFM_SCL_SITE"):
        return Path(built).resolve()
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(out)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"DOCS_SHORT": "1"}, check=True)
    return out


@pytest.fixture(scope="module")
def browser():
    with Chromium() as window:
        yield window


def test_links_and_citations(site):
    assert site_checks.broken_links(site) == {}
    assert site_checks.uncited(site) == []


def test_every_page(site, browser):
    faults, formulas = {}, 0
    for page in site_checks.pages(site):
        figures, wrong = site_checks.measure(browser, page)
        formulas += figures["formulas"]
        if wrong:
            faults[str(page.relative_to(site))] = wrong
    assert faults == {}
    assert formulas > 1000


def test_the_search_finds_without_a_network(site, browser):
    results, said = site_checks.search(browser, site, "orthogonal+frame")
    assert "The book of theory" in " ".join(results)
    assert said == []


FAULTY = """<!doctype html><html lang="en"><body style="background: #fff"><main><h1>A</h1>
<a class="skip" href="#a">to the content</a>
{fault}</main></body></html>"""


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ('<p style="color: #999">pale</p>', "contrast 2.85"),
        ('<p style="opacity: 0.5">pale</p>', "contrast"),
        ('<div style="background: #222"><p style="color: #444">dark</p></div>', "contrast"),
        ('<img src="none.png" alt="a b c">', "not shown"),
        ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=" alt="">', "no alt text"),
        ("<p>with $x^2$ in it</p>", "raw TeX"),
        ("<script>undefined.x</script>", "console"),
        ('<script src="http://127.0.0.1:9/x.js"></script>', "asks http://127.0.0.1:9/x.js"),
        ('<div style="width: 600px">wide</div>', "px wide at 400"),
        ('<a href="#a" style="outline: none">unseen</a>', "focus not seen"),
        ('<a href="#a" tabindex="3">first</a>', "jump the order"),
        ('<span class="math">x</span>', "not rendered"),
    ],
)
def test_a_planted_fault_is_measured(tmp_path, browser, fault, said):
    page = tmp_path / "page.html"
    page.write_text(FAULTY.format(fault="<p>plain</p>"))
    assert site_checks.measure(browser, page)[1] == []
    page.write_text(FAULTY.format(fault=fault))
    assert said in " | ".join(site_checks.measure(browser, page)[1])
