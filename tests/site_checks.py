"""What must hold of every page of the built site: by parsing its files, and by opening it in Chromium.

`python -m tests.site_checks build/site` prints the figures of every page (without Chromium the files are parsed only),
and exits 1 if something is wrong.
"""

import html.parser
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.browser import BROWSER, DRIVER, Chromium

SCRIPT = (Path(__file__).parent / "site_in_browser.js").read_text(encoding="utf-8")
# Outside of code: a command of TeX, or a delimiter.
RAW_TEX = re.compile(r"\\[a-zA-Z]+|\\[()\[\]]|\$[^$\s][^$]*\$|\{code-cell\}|:::|\{(?:ref|doc|math)\}`")
# Pages that a page names in its head; any other <link> is loaded.
RELATED = ("index", "search", "next", "prev", "canonical", "author", "license")
NARROW, STEPS = 400, 12
FOCUSED = """
const element = document.activeElement, style = getComputedStyle(element), box = element.getBoundingClientRect();
const shown = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1 || style.boxShadow !== "none";
return {name: `${element.tagName}.${element.className}`, body: element === document.body, shown,
        inside: box.width > 0 && box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight,
        text: element.textContent.trim().slice(0, 40),
        place: [...document.querySelectorAll("*")].indexOf(element)};
"""


class Links(html.parser.HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loads = {"", "top"}, [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        elif tag == "link" and attributes.get("href"):
            (self.links if attributes.get("rel") in RELATED else self.loads).append(attributes["href"])
        self.loads += [attributes[name] for name in ("src", "srcset", "poster", "data") if attributes.get(name)]


def pages(site):
    """The pages of a built site."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.relative_to(site).parts)


def broken_links(site):
    """By page: internal links and anchors that lead nowhere, and what would be loaded from elsewhere."""
    parsed, wrong = {path.resolve(): Links(path) for path in pages(site)}, {}
    for path, page in parsed.items():
        bad = [link for link in page.links if not leads_somewhere(path, link, parsed)]
        bad += [load for load in page.loads if not is_here(path, load)]
        if bad:
            wrong[str(path.relative_to(site.resolve()))] = bad
    return wrong


def leads_somewhere(page, link, parsed):
    """Whether a link leads outside, to a file, or to an anchor that its page has."""
    parts = urlsplit(link)
    if parts.scheme in ("http", "https", "mailto"):
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target not in parsed:
        return target.is_file()
    return unquote(parts.fragment) in parsed[target].anchors


def is_here(page, load):
    """Whether what a page loads is in it, or a file of the site."""
    parts = urlsplit(load)
    here = not parts.scheme and not parts.netloc and (page.parent / unquote(parts.path)).resolve().is_file()
    return here or parts.scheme == "data"


def uncited(site):
    """Statements of the book that its page does not give an anchor, and citations on any page that are no links."""
    book = Links(site / "theory.html")
    numbers = {link.removeprefix("#") for link in book.links if re.fullmatch(r"#\d+\.\d+", link)}
    wrong = sorted(numbers - book.anchors)
    for path in pages(site):
        words = re.sub(r"<(pre|code|title)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        wrong += [f"{path.name}: {match[0]}" for match in re.finditer(r"\b[Tt]heory,\s+\d+\.\d+", words)]
    return wrong


def measure(browser, page):
    """The figures of one page, and what is wrong with it, in words."""
    url, wrong = page.resolve().as_uri(), []
    figures = {}
    for dark in (False, True):
        browser.open(url, dark=dark)
        result = browser.run(SCRIPT)
        name = "dark" if dark else "light"
        figures[name] = round(result["contrast"]["least"], 2)
        wrong += [f"{name}: contrast {ratio} of {where}" for where, ratio in result["contrast"]["pale"].items()]
        wrong += [f"{name}: console: {line}" for line in browser.errors()]
        wrong += [f"asks {url}" for url in browser.requests() if urlsplit(url).scheme not in ("file", "data", "blob")]
    figures |= {"texts": result["contrast"]["texts"], "images": len(result["images"]), "formulas": result["formulas"]}
    wrong += [f"image {source}: no alt text" for source, alt, _ in result["images"] if not alt.strip()]
    wrong += [f"image {source}: not shown" for source, _, loaded in result["images"] if not loaded]
    wrong += [f"raw TeX: {raw}" for raw in sorted(set(RAW_TEX.findall(result["text"])))]
    wrong += [f"{result['failed']} formulas not rendered"] * bool(result["failed"])
    wrong += [f"{result['tabindex']} elements jump the order of the keyboard"] * bool(result["tabindex"])
    wrong += ["no language"] * (not result["lang"])
    # The search page makes its heading when it searches.
    wrong += [f"{result['headings']} headings h1"] * (result["headings"] != 1 and page.name != "search.html")
    wrong += keyboard(browser)
    browser.open(url, width=NARROW)
    narrow = browser.run(SCRIPT)
    figures["width"] = narrow["scroll"]
    wrong += [f"{narrow['scroll']} px wide at {NARROW}: {narrow['wide']}"] * (narrow["scroll"] > NARROW)
    return figures, wrong


def keyboard(browser):
    """What is wrong with what Tab meets on the open page: the skip link, then the order of the page, focus shown."""
    wrong, places = [], []
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    for step in range(STEPS):
        browser.press_tab()
        at = browser.run(FOCUSED)
        if at["body"]:
            break
        if step == 0 and "skip" not in at["name"]:
            wrong.append(f"Tab meets {at['name']} before a link that skips to the content")
        if not at["shown"] or not at["inside"]:
            wrong.append(f"focus not seen on {at['name']} {at['text']!r}")
        places.append(at["place"])
    return wrong + ["Tab jumps about the page"] * (places != sorted(places)) + ["Tab meets nothing"] * (not places)


def search(browser, site, words):
    """Titles that the offline search finds, and what the console says of it."""
    browser.open(f"{(site / 'search.html').resolve().as_uri()}?q={words}")
    results = browser.run(
        """const start = Date.now(); const list = () => document.querySelectorAll("#search-results li a");
        return new Promise(done => { const look = () => list().length || Date.now() - start > 5000 ?
            done([...list()].map(a => a.textContent)) : setTimeout(look, 50); look(); });"""
    )
    return results, browser.errors()


def report(site):
    """Print the figures of every page; the number of faults."""
    broken, cited = broken_links(site), uncited(site)
    for page, links in broken.items():
        print(f"{page}: broken: {links}")
    for fault in cited:
        print(f"not a link: {fault}")
    faults = sum(map(len, broken.values())) + len(cited)
    if not (BROWSER and DRIVER):
        print(f"{len(pages(site))} pages parsed; not opened: no Chromium here")
        return faults
    with Chromium() as browser:
        for page in pages(site):
            figures, wrong = measure(browser, page)
            print(page.relative_to(site), figures, f"{len(wrong)} wrong", *wrong, sep="\n    ", flush=True)
            faults += len(wrong)
        results, said = search(browser, site, "orthogonal+frame")
        print(f"search: {len(results)} results, console: {said}")
    return faults + len(said) + (not results)


if __name__ == "__main__":
    sys.exit(report(Path(sys.argv[1])) > 0)
