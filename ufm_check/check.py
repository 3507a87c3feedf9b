r"""Check certificates without trusting their maker: `ufm-check [--large] FILE.json [FILE.json ...]`.

Needs the standard library, python-flint (ball arithmetic) and this package, no code of the solver;
redoes every inequality from the raw numbers, in balls, and prints what it proved. Exit status: 0 proved (a global
minimiser within the stated gap, and all that is printed holds), 1 not proved (less is claimed, or some claim does not
follow), 2 unreadable, or so large that it may take more than 120 seconds, 2 GiB of memory or 40 MiB of the disk: with
--large a file of an origin you trust may take a hundred times. Where a folder `solvers` of your own is in the way, the
console command `ufm-check` does the same.

The loss of the point, claimed feasible by construction, is an upper bound. The lower bound is of a kind: laplacian
(UFM+) is the loss of the orthogonal frame, elementary its counterpart without the ReLU, matrix that of a dual.
"Certified" asks that their gap be within `tolerance` times the least that one broken pair or tie costs, and of UFM+
that no value that batches fix or tie, in chains too, be missed by more than its root. What the gap implies, and
uniqueness, is proved where it is claimed. Chapter 6 of docs/theory.md states every rule and proves it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from decimal import ROUND_FLOOR
from typing import Any

from flint import arb, ctx

from ufm_check import bounds, consequences, consequences_ufm, reading
from ufm_check.composition import in_expectation
from ufm_check.losses import in_words
from ufm_check.points import read_point
from ufm_check.reading import Refusal, Statement, digest, doubles, need, prove, record, shown

FINEST_TOLERANCE, COARSEST_TOLERANCE, FARTHEST_MOVE, LARGE = 1e-30, 1e-2, 1e-6, 100
PARTS = ("problem", "point", "lower_bound", "witness", "other_minimiser", "claims", "second_opinion", "checksum")
CLAIMS = ("status", "reason", "upper", "lower", "gap", "theoretical", "tolerance", "unique", "implied")


def lower_bound(problem: Statement, dual: Any, frame: arb) -> tuple[arb, list[Any]]:
    """The bound of a dual, at least the value it claims; and G0, v and C of one given by matrices."""
    kind = dual.get("kind") if isinstance(dual, dict) else None
    matrices = ("gram", "v", "N") if kind == "matrix" else ()
    _, _, value, *matrix = record(dual, "lower_bound", "kind", "source", "value", *matrices)
    need(kind in ("matrix", "elementary") or (kind == "laplacian" and problem.nonneg), "kind of bound is unknown")
    closed = frame if kind == "laplacian" else bounds.counted(problem, free=True)
    bound, numbers = bounds.matrix_bound(problem, *matrix) if matrix else (closed, [])
    prove(bound >= doubles([value], "value", 1)[0], "the lower bound")
    return bound, numbers


def implied_by(problem: Statement, evidence: list[Any], eps: arb, claims: Any, other: Any) -> list[str]:
    """Redo what is claimed of all points of no larger loss, by pair weights or the numbers of a dual; in sentences."""
    implied, unique, said = claims["implied"], claims["unique"], []
    need(type(unique) in (bool, type(None)) and (other is None) == (unique is not False), "uniqueness is unclear")
    need(implied is None or evidence != [[]], "implications of UFM need a dual")
    prove(unique is None or (implied is not None and problem.d >= problem.k), "uniqueness")
    if implied is not None:
        redo: Callable[..., str] = consequences.check_implied if problem.nonneg else consequences_ufm.check_intervals
        found = redo(problem, *evidence, eps, implied, unique)
        said.append(f"Every feasible point of no larger loss than it has {found}.")
    if unique is True:
        said.append("All minimisers have one Gram matrix" + (", the orthogonal frame's." if problem.nonneg else "."))
    if other is not None:
        exact = read_point(problem, *record(other, "other_minimiser", "rows", "norms"))
        prove(consequences.is_other_minimiser(problem, exact), "another minimiser")
        said.append("The orthogonal frame is not the only minimiser: the file holds one with another Gram matrix.")
    return said


def resolution(problem: Statement, pair: arb, gram: reading.Gram, frame: arb) -> tuple[arb, str]:
    """The least that one broken pair or tie costs, in balls and in words; if nothing is constrained, what stands in."""
    least = pair.min(bounds.smallest_tie_weight(problem, (lambda a, b: arb(0)) if problem.nonneg else gram))
    if least == bounds.INFINITY:
        return arb(1e-8) * (1 + abs(frame)), "1e-8 of 1 plus the size of a frame's loss (no pair or tie costs anything)"
    return least, "what one broken pair or tie costs"


def check(content: dict[str, Any], limit_factor: int = 1) -> list[str]:
    """Redo everything; sentences on what was proved. Raises Refusal. room: as in `read`."""
    given, point, dual, witness, other, claims, _, checksum = record(content, "the certificate", "format", *PARTS)[1:]
    problem = reading.read_problem(given, limit_factor)
    rows, norms, embedding, moved = record(point, "point", "rows", "norms", "embedding_digest", "moved")
    sums = (embedding, given["samples_digest"])
    need(all(type(x) is str and reading.HEX_DIGEST.fullmatch(x) for x in sums), "digests")
    status, _, upper, lower, gap, theoretical, tolerance, *_ = record(claims, "claims", *CLAIMS)
    need(status in ("certified", "not certified", "inconclusive"), "status is unknown")
    upper, lower = doubles([upper, lower], "upper and lower", 2)
    gap, moved = doubles([gap, moved], "gap and moved", 2, 0.0)
    (tolerance,) = doubles([tolerance], "tolerance", 1, FINEST_TOLERANCE, COARSEST_TOLERANCE)
    need((witness is None) == (status != "not certified"), "a witness goes with not certified, and only with that")
    prove(checksum == digest({name: value for name, value in content.items() if name != "checksum"}), "the checksum")

    with ctx.workprec(problem.bits):
        C = [] if problem.nonneg else [[arb(0)] * len(problem.sizes) for _ in problem.sizes]
        gram, frame = read_point(problem, rows, norms), bounds.counted(problem)
        at_point = bounds.loss(problem, gram, C)
        bound, numbers = lower_bound(problem, dual, frame)
        prove(at_point <= upper, "the upper bound")
        prove(bound >= lower, "the lower bound")
        prove(at_point - bound <= gap, "the gap")
        stated = [] if theoretical is None and not problem.nonneg else doubles([theoretical], "theoretical", 1)
        prove(all(abs(x - frame) <= abs(frame) * arb(2) ** -52 for x in stated), "the frame's loss")
        said = [
            f"{given['model']}{in_words(problem.loss)}, {problem.k} classes, {sum(problem.sizes)} samples, d = "
            f"{problem.d}, tau = {float(problem.tau)!r}, {len(problem.batches)} "
            f"{in_expectation(problem.compositions) if problem.expected else 'batch(es)'}: the point's loss and the "
            "least of all feasible "
            f"points lie between {shown(lower, 17, ROUND_FLOOR)} and {shown(upper, 17)}, at most {shown(gap)} apart."
        ]
        *weights, pair = bounds.pair_weights(problem) if problem.nonneg else [bounds.smallest_dual_weight(problem, C)]
        least, of_least = resolution(problem, pair, gram, frame)
        margin, slack = tolerance * least, tolerance.sqrt()
        evidence, best = (weights, frame) if problem.nonneg else ([numbers], bound)
        said += implied_by(problem, evidence, at_point - best, claims, other)
        missed = consequences.most_missed(problem, gram) if problem.nonneg else arb(0)
        kept = bool(missed <= slack)
        if status == "not certified":
            better = bounds.loss(problem, read_point(problem, *record(witness, "witness", "rows", "norms")))
            prove(at_point - better > (margin if kept else arb(0)), "the better point is better")
            said.append("The point is no global minimiser: the file holds a better one.")
        prove(status == "certified", f"optimality (the file says: {status}). What holds: " + " ".join(said))
        prove(gap <= margin, "the gap is small enough for the status")
        prove(kept, "what follows in chains of batches")
        prove(moved <= FARTHEST_MOVE, "H is near the certified point")
    chains = f"; it misses no value that batches fix or tie, in chains too (theory, 3.17), by more than {shown(missed)}"
    return [
        *said,
        f"So the point is a global minimiser within the gap: no feasible point has a loss lower by more than "
        f"{shown(gap)}, a share of at most {shown(gap / least)} of {of_least}{chains if problem.nonneg else ''}.",
        f"Not checked: second opinion, reasons, sources; that labels {given['samples_digest'][:16]} reduce to this "
        f"problem; and that embedding {embedding[:16]} lies within {shown(moved)} of the point.",
    ]


def main(paths: list[str]) -> int:
    """Check files, whatever they hold, and say what was proved; the worst exit status."""
    if {"-h", "--help"} & set(paths):
        print(__doc__)
        return 0
    limit_factor, paths = LARGE if "--large" in paths else 1, [path for path in paths if path != "--large"]
    worst = 0 if paths else print("usage: ufm-check [--large] FILE.json [FILE.json ...]") or 2
    for path in paths:
        try:
            code, sentences = 0, check(reading.read(path, limit_factor), limit_factor)
        except Refusal as refusal:
            code, *sentences = refusal.args
        except (OSError, ValueError, ArithmeticError, RecursionError, MemoryError) as failure:
            code, sentences = 2, [type(failure).__name__]
        worst = max(worst, code)
        print(f"{path!a}: {('PROVED', 'NOT PROVED', 'UNREADABLE')[code]}")
        for sentence in sentences:
            print("  " + ascii(sentence)[1:-1])
    return worst


def script() -> int:
    """The console command."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(script())
