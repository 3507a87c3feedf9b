"""The words of the project: those of the glossary and of the field, and no private ones among identifiers."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
PACKAGES = ("ufm", "ufm_check", "solvers", "networks", "experiments", "figures", "tests", "docs")
# Former private words, and what is said instead (CONTRIBUTING.md). Whole identifiers, or words of one.
RETIRED = {
    "lane": "slot", "lanes": "slots", "walks": "trajectories", "walked": "outcomes", "tell": "progress",
    "told": "fingerprint", "parted": "split_orbits", "blame": "attribution", "strata": "draws", "glue": "merge",
    "glued": "merged", "mend": "fix", "mended": "repaired", "climb": "continuation", "climbs": "continuations",
    "rung": "stage", "ladder": "temperatures", "temperate": "initial_temperature", "coldest": "smallest_temperature",
    "crowded": "fewer_dimensions_than_classes", "conflict": "gap_contribution", "pressed": "active",
    "settled": "early_exit", "creeping": "stalled", "stir": "perturbation", "sharpened": "newton_refined",
    "price": "resolution", "prices": "resolutions", "weakest": "smallest_weight", "spare": "auxiliary",
    "dealt": "sharded", "room": "limit", "rooms": "packages", "found": "a noun", "asked": "a noun", "given": "a noun",
    "own": "custom, or a noun", "described": "to_dict", "strangers": "never_cosampled_pairs",
    "mixture": "count_vectors", "kept": "cached, stored or retained",
}  # fmt: skip
# Names of other packages: exceptions, and the decorator of hypothesis where a module imports it.
ALLOWED = {"FileNotFoundError", "ModuleNotFoundError", "PackageNotFoundError"}
HYPOTHESIS = re.compile(r"^from hypothesis import .*\bgiven\b", re.MULTILINE)
# Former public names, where they are defined and tested: they work for a release with a warning.
FORMER = {
    "figures/style.py": {"own"},
    "solvers/certification/suboptimality.py": {"blame"},
    "solvers/methods/accelerated.py": {"settled"},
    "solvers/methods/quasi_newton.py": {"settled"},
    "ufm/losses.py": {"is_own", "own", "described"},
    "ufm/model/problem.py": {"coldest", "is_crowded"},
    "tests/test_deprecated.py": {"coldest", "is_crowded", "is_own", "own", "described", "settled"},
}  # fmt: skip


def words_of(identifier):
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", identifier)}


def identifiers(source):
    """Every name of a module, but those of tests, which are sentences."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and not token.string.startswith("test_"):
            yield token.start[0], token.string


def retired_in(source, former=frozenset()):
    return [(line, name) for line, name in identifiers(source) if name not in former and words_of(name) & set(RETIRED)]


def modules(package):
    return sorted(path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts)


def read_identifiers(paths):
    """How many identifiers the modules hold, and the retired ones: file, line and name."""
    read, retired = 0, []
    for path in paths:
        source = path.read_text(encoding="utf-8")
        read += sum(1 for _ in identifiers(source))
        file = path.relative_to(ROOT).as_posix()
        others = ALLOWED | FORMER.get(file, set()) | ({"given"} if HYPOTHESIS.search(source) else set())
        retired += [(file, line, name) for line, name in retired_in(source, others)]
    return read, retired


def terms():
    """The terms of the glossary: an entry may have several, separated by commas."""
    blocks = re.findall(r"^```\{glossary\}\n(.*?)^```", GLOSSARY.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line and not line.startswith(" ")]
    return [term.strip() for line in lines for term in line.split(",")]


def prose():
    """The text of the site, of the README files and of the packages, without the glossary and the tests."""
    pages = [path for path in (ROOT / "docs").rglob("*.md") if path != GLOSSARY]
    sources = [path for package in PACKAGES if package != "tests" for path in modules(package)]
    paths = [*ROOT.glob("*.md"), *(ROOT / "proofs").glob("*.md"), *pages, *sources]
    return re.sub(r"[\s_-]+", " ", " ".join(path.read_text(encoding="utf-8") for path in paths)).lower()


def is_used(term, text):
    return re.search(rf"(?<!\w){re.escape(re.sub('[_-]', ' ', term.lower()))}(?:e?s|ed|d)?(?!\w)", text) is not None


def test_every_term_of_the_glossary_is_defined_once_and_used_elsewhere():
    known, text = terms(), prose()
    assert 60 < len(known) == len(set(known)) < 120
    assert [term for term in known if not is_used(term, text)] == []
    assert not is_used("a term that no page uses", text)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_identifier_holds_a_retired_word(package):
    read, retired = read_identifiers(modules(package))
    print(f"{package}: {read} identifiers read")
    assert read > 100
    assert retired == [], f"{package}: {len(retired)} of {read} identifiers hold a retired word"


@pytest.mark.parametrize("name", ["lane", "first_lane", "n_lanes", "LaneState", "MIXTURE", "_glued"])
def test_a_planted_retired_identifier_is_detected(name):
    read = list(identifiers(f"slot = {name}"))
    print(f"{len(read)} identifiers read")
    assert len(read) == 2
    assert retired_in(f"slot = {name}") == [(1, name)]
    assert retired_in("def test_a_lane_is_kept():\n    kernel = landscape") == []
