"""The words of the project: those of the glossary and of the field, and no private ones among identifiers."""

import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
PACKAGES = ("ufm", "ufm_check", "solvers", "networks", "experiments", "figures", "tests", "docs")
# Former private words, and what is said instead (CONTRIBUTING.md). Whole identifiers, or words of one.
RETIRED = {
    "lane": "slot", "lanes": "slots", "walks": "trajectories", "walked": "outcomes", "tell": "progress", "told": "fingerprint",
    "parted": "split_orbits", "blame": "attribution", "strata": "draws", "glue": "merge", "glued": "merged",
    "mend": "fix", "mended": "repaired", "climb": "continuation", "climbs": "continuations", "rung": "stage",
    "ladder": "temperatures", "temperate": "initial_temperature", "coldest": "smallest_temperature",
    "crowded": "fewer_dimensions_than_classes", "conflict": "gap_contribution", "pressed": "active",
    "settled": "early_exit", "creeping": "stalled", "stir": "perturbation", "sharpened": "newton_refined",
    "price": "resolution", "prices": "resolutions", "weakest": "smallest_weight", "spare": "auxiliary", "dealt": "sharded",
    "room": "limit", "rooms": "packages", "found": "a noun", "asked": "a noun", "given": "a noun", "own": "custom, or a noun",
    "described": "to_dict", "strangers": "never_cosampled_pairs", "mixture": "count_vectors", "kept": "cached, stored or retained",
}  # fmt: skip
# Names of other packages, of a test's sentence, and former public names, which work for a release with a warning.
ALLOWED = {"given", "FileNotFoundError", "ModuleNotFoundError", "PackageNotFoundError", "found"}
FORMER = {"blame", "coldest", "is_crowded", "described", "is_own", "own", "settled"}


def words_of(identifier):
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", identifier)}


def identifiers(source):
    """Every name of a module, but those of tests, which are sentences."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and not token.string.startswith("test_"):
            yield token.start[0], token.string


def retired_in(source, former=frozenset()):
    return [(line, name) for line, name in identifiers(source) if name not in former and words_of(name) & set(RETIRED)]
