"""Objects print as a few lines, whatever their size, in a trace and stacked; in a notebook as whole HTML."""

from dataclasses import replace
from xml.etree import ElementTree

import equinox as eqx
import jax
import numpy as np
import pytest
from problems import PROBLEMS, frame, step

import solvers
import ufm
from solvers.loop.method import COLUMNS, Record
from solvers.loop.stopping import Status
from solvers.solution import Solution
from ufm.display import COLD, HOT, MIDDLE, MOST_CELLS, Summary, between, counted, in_runs, page, plain, thumbnail

MOST_LINES, MOST_COLUMNS = 12, 120
MANY = np.repeat(np.arange(1000), 1 + np.arange(1000) % 97)
LARGE = ufm.Problem(MANY, 1000, 0.123456789, ufm.batching.partition(len(MANY), 3, 0), nonneg=False)
OVERLAPPING = ufm.batching.partition(600, 3, 0)


def problem_of_70_classes():
    return ufm.Problem(np.arange(70), 70, 0.1, multiplicity=np.arange(70) * 10**9 + 2)


def solution(problem, starts=1000):
    """Made, not solved: the frame, stopped in every way there is."""
    statuses = tuple(Status)
    numbers = np.geomspace(1e-30, 1e30, starts)
    line = Record(**dict.fromkeys(COLUMNS, np.zeros(1)))
    return Solution(
        problem=problem,
        points=np.broadcast_to(np.eye(problem.k, problem.d), (starts, problem.k, problem.d)),
        index=np.asarray(problem.labels).astype(np.int64),
        status=tuple(statuses[s % len(statuses)] for s in range(starts)),
        excess=numbers,
        residual=numbers,
        iterations=np.arange(starts),
        lifts=np.zeros(starts, int),
        moved=np.zeros(starts),
        history=(line,) * starts,
    )


def certificate(problem, H=None):
    return solvers.certify(frame(problem) if H is None else H, problem, conic=False)


SMALL = PROBLEMS["two pairs"]()
PRINTED = {
    "a problem": lambda: SMALL,
    "a large problem": lambda: LARGE,
    "a problem of many batches": lambda: ufm.Problem(MANY, 3, batches=[range(s, s + 1 + s % 50) for s in range(900)]),
    "a solution": lambda: solution(SMALL, 1),
    "a large solution": lambda: solution(LARGE),
    "a verification": lambda: solvers.verify(frame(SMALL), SMALL),
    "a verification of nothing": lambda: solvers.verify(np.full((4, 2), np.nan), SMALL),
    "a verification of a merged point": lambda: solvers.verify(np.tile([1.0, 0.0], (4, 1)), SMALL),
    "a certificate": lambda: certificate(SMALL),
    "a certificate of a merged point": lambda: certificate(SMALL, np.tile([1.0, 0.0], (4, 1))),
    "a certificate of UFM": lambda: certificate(PROBLEMS["two pairs"](nonneg=False)),
    "a certificate of 70 classes": lambda: certificate(problem_of_70_classes()),
    "unique": lambda: ufm.uniqueness(SMALL),
    "not unique": lambda: ufm.uniqueness(PROBLEMS["a class in two pieces"](d=3)),
    "uniqueness of many batches": lambda: ufm.uniqueness(ufm.Problem(np.arange(600) % 200, 300, batches=OVERLAPPING)),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.thorough] * ("70" in n)) for n in PRINTED])
def test_a_few_lines(name):
    printed = PRINTED[name]()
    lines = repr(printed).splitlines()
    assert 1 < len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= MOST_COLUMNS, max(lines, key=len)
    summary = printed.summary()
    assert lines[0] == summary.title
    assert "array" not in repr(printed)
    assert "nan" not in lines[0]
    well_formed(printed._repr_html_())


def well_formed(html):
    """The tree of an HTML fragment, which is XML as well."""
    return ElementTree.fromstring(html)


def test_what_a_problem_says():
    assert repr(step(4, 10, 0.5, d=7)) == "\n".join(
        [
            "Problem: UFM+, k = 4, d = 7, tau = 0.5",
            "  class sizes  2 x 50, 2 x 5 (n = 110, R = 10)",
            "  points       110",
            "  batches      the full batch",
        ]
    )


def test_what_a_solution_says():
    said = repr(solution(SMALL, 1))
    assert "Solution: 1 start\n" in said
    assert "UFM+, k = 2, d = 2, tau = 1" in said
    assert "proof" in said
    assert "none yet: call solvers.certify" in said
    assert f"1 {next(iter(Status))}" in said


def test_what_is_proved_and_what_not_is_said_first():
    assert repr(certificate(SMALL)).startswith("Certificate: certified")
    assert repr(PRINTED["a certificate of a merged point"]()).startswith("Certificate: not certified")
    assert repr(PRINTED["a verification"]()).startswith("Verification: global minimiser")
    assert repr(PRINTED["a verification of nothing"]()).startswith("Verification: not finite")
    assert repr(PRINTED["unique"]()).startswith("Orthogonal frame: the only minimiser")
    assert repr(PRINTED["not unique"]()).startswith("Orthogonal frame: not the only minimiser")


@pytest.mark.parametrize("within", ["jit", "vmap", "shapes", "stacked"])
def test_a_problem_without_values_prints_its_shape(within):
    said = []

    def body(problem):
        said.extend([repr(problem), problem._repr_html_(), str(problem)])
        return problem.tau

    if within == "jit":
        jax.jit(body)(SMALL)
    elif within == "vmap":
        jax.vmap(lambda tau: body(eqx.tree_at(lambda p: p.tau, SMALL, tau)))(np.array([0.5, 1.0]))
    elif within == "shapes":
        body(eqx.filter_eval_shape(lambda problem: problem, SMALL))
    else:
        body(jax.tree.map(lambda *leaves: np.stack(leaves), SMALL, SMALL))
    assert said[0] == said[2] == "Problem: UFM+, k = 2, d = 2, without values"
    well_formed(said[1])


def test_names_that_could_break_the_page_are_escaped():
    odd = Summary("<script>alert('a')</script>", {"<i>&": 'x < y & "z"', "</td>": "]]>"}, np.eye(2))
    html = page(odd)
    assert "<script" not in html
    assert "<i>" not in html
    tree = well_formed(html)
    assert tree.find(".//caption/b").text == odd.title
    assert [cell.text for cell in tree.iter("th")] == list(odd.lines)
    assert [cell.text for cell in tree.iter("td")] == list(odd.lines.values())


def test_lines_that_are_too_long_go_on_below():
    long = " ".join(["word"] * 60)
    lines = plain(Summary("title", {"name": long, "other": "short", "unbroken": "x" * 300})).splitlines()
    assert max(map(len, lines)) <= MOST_COLUMNS
    assert " ".join(" ".join(lines[1:4]).removeprefix("  name").split()) == long
    assert lines[4].split() == ["other", "short"]


# The thumbnail.


def squares(svg):
    return [(rect.get("fill"), float(rect.get("x")), float(rect.get("y"))) for rect in well_formed(svg)]


def test_colours_of_the_thumbnail():
    drawn = squares(thumbnail(np.array([[1.0, -1.0], [0.0, 5.0]])))
    named = [f"rgb({','.join(map(str, colour))})" for colour in (HOT, COLD, MIDDLE, HOT)]
    assert [fill for fill, _, _ in drawn] == named
    assert [(x, y) for _, x, y in drawn] == [(0, 0), (60, 0), (0, 60), (60, 60)]


@pytest.mark.parametrize(("k", "shown"), [(2, 2), (64, 64), (100, MOST_CELLS), (1000, MOST_CELLS)])
def test_the_thumbnail_of_many_classes_stays_small(k, shown):
    svg = thumbnail(np.eye(k))
    drawn = squares(svg)
    assert len(drawn) == shown**2
    hot = f"rgb({','.join(map(str, HOT))})"
    assert [i for i, (fill, _, _) in enumerate(drawn) if fill == hot] == [i * (shown + 1) for i in range(shown)]
    assert all(0 <= x < 120 and 0 <= y < 120 for _, x, y in drawn)
    assert len(svg) < 400_000


def test_a_class_mean_of_norm_zero_is_drawn():
    stopped = solution(SMALL, 1)
    dead = replace(stopped, points=np.array([[[1.0, 0.0], [0.0, 0.0]]]))
    np.testing.assert_array_equal(dead.gram(0), [[1.0, 0.0], [0.0, 0.0]])
    assert len(squares(thumbnail(dead.gram(0)))) == 4


# Numbers in words.


def test_counts_ranges_and_runs():
    assert counted([Status.CONVERGED, Status.OUT_OF_TIME, Status.CONVERGED]).startswith("2 converged, 1 ")
    assert between(np.array([0.5])) == "0.5"
    assert between(np.array([1e-17, 3.0])) == "1e-17 to 3"
    assert in_runs(np.array([5, 5, 2])) == "2 x 5, 2"
    assert in_runs(np.arange(100)) == "0, 1, 2, 3, ..., 99"
