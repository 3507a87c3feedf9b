"""The book, docs/theory.md: every citation has a target, every target holds a statement, every name in it exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "docs" / "theory.md"
PACKAGES = ("ufm", "ufm_check", "solvers", "networks", "experiments", "figures", "tests", "proofs", "docs", ".ci")
SUFFIXES = (".py", ".v", ".md", ".sh", ".toml", "")

HEADING = re.compile(r"^### (\d+\.\d+) (.+)$", re.MULTILINE)
NUMBERS = r"\d+\.\d+(?:(?:\s*,\s*|\s+(?:and|to)\s+)\d+\.\d+)*"
# Citations wrap like other text: the number may stand on the next line, after the mark of a comment.
CITATION = re.compile(rf"\b[Tt]heory,[\s#*]+({NUMBERS}|\d+)")
OUTSIDE = re.compile(r"\bdesign,?[\s#*]+sections?\b", re.IGNORECASE)


def statements(book):
    """The sections of the book by number."""
    parts = HEADING.split(book)
    return {number: text.split("\n---\n")[0] for number, text in zip(parts[1::3], parts[3::3], strict=True)}


def is_statement(section):
    """A definition, or a statement with a proof that ends; and who uses it."""
    proved = re.search(r"^\*\*Statement\.\*\*\s+\S.*^\*\*Proof\.\*\*\s+\S.*∎", section, re.DOTALL | re.MULTILINE)
    defined = re.search(r"^\*\*Definition\.\*\*\s+\S", section, re.MULTILINE)
    return bool((proved or defined) and re.search(r"^\*\*Used by\.\*\*\s+`", section, re.MULTILINE))


def bad_citations(text, book):
    """What is wrong with the citations in a text, in words."""
    result = statements(book)
    wrong = [f"cites a document that is not here: {match.group()!r}" for match in OUTSIDE.finditer(text)]
    for citation in CITATION.finditer(text):
        for number in re.findall(r"\d+(?:\.\d+)?", citation.group(1)):
            if number not in result:
                wrong.append(f"theory has no {number}")
            elif not is_statement(result[number]):
                wrong.append(f"theory, {number} holds no statement")
    return wrong


def table_citations(text):
    """What Markdown tables cite in a column headed "theory", as citations."""
    column, cited = None, []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")] if line.startswith("|") else []
        if not cells:
            column = None
        elif "theory" in cells:
            column = cells.index("theory")
        elif column is not None:
            cited += [f"theory, {number}" for number in re.findall(r"\d+(?:\.\d+)?", cells[column])]
    return "\n".join(cited)


def sources():
    """Every text of the repository that may cite the book, itself included; not this file, which plants faults."""
    files = [
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in SUFFIXES and path.is_file()
    ]
    return [path for path in [*files, *ROOT.glob("*.md")] if "__pycache__" not in path.parts and path != Path(__file__)]


def test_every_citation_has_a_target_that_holds_a_statement():
    book = BOOK.read_text(encoding="utf-8")
    wrong = {}
    for path in sources():
        text = path.read_text(encoding="utf-8")
        if bad := bad_citations(text + "\n" + table_citations(text), book):
            wrong[str(path.relative_to(ROOT))] = bad
    assert wrong == {}


def test_every_section_of_the_book_is_a_numbered_statement():
    book = BOOK.read_text(encoding="utf-8")
    result = statements(book)
    assert [number for number, section in result.items() if not is_statement(section)] == []
    chapters = re.findall(r"^## (\d+)\. ", book, re.MULTILINE)
    assert chapters == [str(c) for c in range(1, len(chapters) + 1)]
    inside = [[n for n in result if n.split(".")[0] == c] for c in chapters]
    assert inside == [
        [f"{c}.{i}" for i in range(1, len(numbered) + 1)] for c, numbered in zip(chapters, inside, strict=True)
    ]
    assert sum(map(len, inside)) == len(result) == len(HEADING.findall(book)) > 50
    assert book.count("\n### ") == len(result), "a heading without a number"


def test_the_index_names_every_statement():
    """Numbers and names stand twice, so that none is renumbered by a slip."""
    book = BOOK.read_text(encoding="utf-8")
    index = book.split("**Contents**")[1].split("\n## ")[0]
    assert re.findall(r"(\d+\.\d+) ([^·\n]+?)(?= ·|\n)", index) == HEADING.findall(book)


def test_references_within_the_book_resolve():
    book = BOOK.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$|\]\([^)]*\)", " ", book, flags=re.DOTALL)
    assert set(re.findall(r"(?<![\d.])[1-9]\.\d+\b", prose)) <= set(statements(book))


def test_every_function_named_as_a_user_exists():
    book = BOOK.read_text(encoding="utf-8")
    used = re.findall(r"^\*\*Used by\.\*\*\s+(.*?)\n\n", book, re.DOTALL | re.MULTILINE)
    missing = [name for line in used for name in re.findall(r"`([^`]+)`", line) if not exists(name)]
    assert missing == []


def exists(name):
    """Whether a dotted name is an attribute of a module of this project."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            result = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(result, part):
                # A field without a default is an attribute of instances only.
                return part in getattr(result, "__annotations__", {})
            result = getattr(result, part)
        return True
    return False


SMALL = """## 1. A chapter

### 1.1 Sound

**Statement.** True.

**Proof.** Clear. ∎

**Used by.** `ufm.model.evaluation.excess`

### 1.2 Without a proof

**Statement.** True?

**Used by.** `ufm.model.evaluation.excess`

### 1.3 Moved elsewhere
"""


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("theory, 1.1", 0),
        ("(paper, Section 4; theory,\n    # 1.1)", 0),
        ("theory, 1.4", 1),
        ("theory, 1", 1),
        ("theory, 1.2", 1),
        ("theory, 1.3", 1),
        ("theory, 1.1 and 1.2, 2.1", 2),
        ("theory, 1.1 to 1.3", 1),
        ("sign, section 2.3", 0),
        ("design, section 2.3", 1),
        ("Design, sections\n2.4", 1),
    ],
)
def test_a_planted_fault_is_found(text, faults):
    assert len(bad_citations(text, SMALL)) == faults


def test_a_planted_fault_in_a_table_is_found():
    table = "| statement | theory |\n|---|---|\n| bound | 1.1 |\n| other | 1.2, 4.4 |\n\n| 7.7 | no column |\n"
    assert len(bad_citations(table_citations(table), SMALL)) == 2


@pytest.mark.parametrize(
    "name", ["ufm.model.evaluation.no_such", "ufm.no_such.excess", "solvers.staircase.escape.Climb.no_such"]
)
def test_a_name_that_does_not_exist_is_found(name):
    assert not exists(name)
