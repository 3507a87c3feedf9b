r"""Check certificates without trusting their maker: `ufm-check [--large] FILE.json [FILE.json ...]`.

It needs the standard library, python-flint (ball arithmetic) and this package, and no code of the solver. It proves
every inequality again from the raw numbers, in balls, and prints what it proved. Exit status: 0 for PROVED (the
point is a global minimiser within the stated gap, and all that is printed holds); 1 for NOT PROVED (the file claims
less, or some claim does not follow); and 2 for UNREADABLE (the file is malformed, or so large that a check may take
more than 120 seconds, 2 GiB of memory or 40 MiB of the disk). If you trust the origin of a file, --large allows it a
hundred times as much.

The point is feasible by construction, so its loss is an upper bound. There are three kinds of lower bound: "laplacian"
(UFM+) is the loss of the orthogonal frame, "elementary" is its counterpart without the ReLU, and "matrix" is the bound
of a dual. "Certified" requires that the gap is at most `tolerance` times the least cost of a broken pair or tie. Under
UFM+ it also requires that the point misses no value that batches fix or tie, directly or in chains, by more than the
root of `tolerance`. What the gap implies, and uniqueness, are proved where they are claimed. Chapter 6 of
docs/theory.md states and proves every rule.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from decimal import ROUND_FLOOR
from typing import Any

from flint import arb, ctx

from ufm_check import bounds, consequences, consequences_ufm, reading
from ufm_check.composition import in_expectation
from ufm_check.fields import HEX_DIGEST, Refusal, digest, doubles, need, prove, record, shown
from ufm_check.losses import in_words
from ufm_check.points import read_point
from ufm_check.reading import Gram, Statement

FINEST_TOLERANCE, COARSEST_TOLERANCE, FARTHEST_MOVE, LARGE = 1e-30, 1e-2, 1e-6, 100
PARTS = ("problem", "point", "lower_bound", "witness", "other_minimiser", "claims", "second_opinion", "checksum")
CLAIMS = ("status", "reason", "upper", "lower", "gap", "theoretical", "tolerance", "unique", "implied")


def lower_bound(problem: Statement, dual: Any, frame: arb) -> tuple[arb, list[Any]]:
    """The lower bound, proved to be at least the claimed value; and [G0, v, C] if it is that of a dual."""
    kind = dual.get("kind") if isinstance(dual, dict) else None
    matrices = ("gram", "v", "N") if kind == "matrix" else ()
    _, _, value, *matrix = record(dual, "lower_bound", "kind", "source", "value", *matrices)
    need(kind in ("matrix", "elementary") or (kind == "laplacian" and problem.nonneg), "the kind of bound is unknown")
    if kind == "matrix":
        bound, numbers = bounds.matrix_bound(problem, *matrix)
    else:
        bound, numbers = frame if kind == "laplacian" else bounds.counted(problem, free=True), []
    prove(bound >= doubles([value], "value", 1)[0], "the lower bound")
    return bound, numbers


def implied_by(problem: Statement, evidence: list[Any], eps: arb, claims: Any, other: Any) -> list[str]:
    """Prove again what is claimed of all points of no larger loss, by pair weights or a dual; in sentences."""
    implied, unique, said = claims["implied"], claims["unique"], []
    need(type(unique) in (bool, type(None)), "unique should be true, false or null")
    need((other is None) == (unique is not False), "another minimiser belongs to unique = false, and only to that")
    need(implied is None or evidence != [[]], "what is implied under UFM needs a dual")
    prove(unique is None or (implied is not None and problem.d >= problem.k), "uniqueness")
    if implied is not None:
        redo: Callable[..., str] = consequences.check_implied if problem.nonneg else consequences_ufm.check_intervals
        bounded = redo(problem, *evidence, eps, implied, unique)
        said.append(f"Every feasible point whose loss is no larger has {bounded}.")
    if unique is True:
        said.append("All minimisers have one Gram matrix" + (", the orthogonal frame's." if problem.nonneg else "."))
    if other is not None:
        exact = read_point(problem, *record(other, "other_minimiser", "rows", "norms"))
        prove(consequences.is_other_minimiser(problem, exact), "another minimiser")
        said.append("The orthogonal frame is not the only minimiser: the file holds one with another Gram matrix.")
    return said


def resolution(problem: Statement, pair: arb, gram: Gram, frame: arb) -> tuple[arb, str]:
    """The least cost of a broken pair or tie, in balls and in words; or its substitute if nothing is constrained."""
    least = pair.min(bounds.smallest_tie_weight(problem, (lambda a, b: arb(0)) if problem.nonneg else gram))
    if least == bounds.INFINITY:
        words = "1e-8 (1 plus the size of a frame's loss), since no pair or tie is constrained"
        return arb(1e-8) * (1 + abs(frame)), words
    return least, "the cost of one broken pair or tie"


def check(content: dict[str, Any], limit_factor: int = 1) -> list[str]:
    """Prove everything again; sentences on what was proved. Raises Refusal. limit_factor: as in `reading.read`."""
    stated, point, dual, witness, other, claims, _, checksum = record(content, "the certificate", "format", *PARTS)[1:]
    problem = reading.read_problem(stated, limit_factor)
    rows, norms, embedding, moved = record(point, "point", "rows", "norms", "embedding_digest", "moved")
    digests = (embedding, stated["samples_digest"])
    need(all(type(x) is str and HEX_DIGEST.fullmatch(x) for x in digests), "digests should be 64 hexadecimal digits")
    status, _, upper, lower, gap, theoretical, tolerance, *_ = record(claims, "claims", *CLAIMS)
    need(status in ("certified", "not certified", "inconclusive"), "the status is unknown")
    upper, lower = doubles([upper, lower], "upper and lower", 2)
    gap, moved = doubles([gap, moved], "gap and moved", 2, 0.0)
    (tolerance,) = doubles([tolerance], "tolerance", 1, FINEST_TOLERANCE, COARSEST_TOLERANCE)
    need((witness is None) == (status != "not certified"), "a witness belongs to 'not certified', and only to that")
    prove(checksum == digest({name: value for name, value in content.items() if name != "checksum"}), "the checksum")

    with ctx.workprec(problem.bits):
        C = [] if problem.nonneg else [[arb(0)] * len(problem.sizes) for _ in problem.sizes]
        gram, frame = read_point(problem, rows, norms), bounds.counted(problem)
        at_point = bounds.loss(problem, gram, C)
        bound, numbers = lower_bound(problem, dual, frame)
        prove(at_point <= upper, "the upper bound")
        prove(bound >= lower, "the lower bound")
        prove(at_point - bound <= gap, "the gap")
        if problem.nonneg or theoretical is not None:
            (frame_loss,) = doubles([theoretical], "theoretical", 1)
            prove(abs(frame_loss - frame) <= abs(frame) * arb(2) ** -52, "the frame's loss")
        plural = "batch" if len(problem.batches) == 1 else "batches"
        batches = f"{len(problem.batches)} {in_expectation(problem.compositions) if problem.expected else plural}"
        said = [
            f"{stated['model']}{in_words(problem.loss)}, {problem.k} classes, {sum(problem.sizes)} samples, d = "
            f"{problem.d}, tau = {float(problem.tau)!r}, {batches}: the loss of the point and the least loss of all "
            f"points lie between {shown(lower, 17, ROUND_FLOOR)} and {shown(upper, 17)}, at most {shown(gap)} apart."
        ]
        *weights, pair = bounds.pair_weights(problem) if problem.nonneg else [bounds.smallest_dual_weight(problem, C)]
        least, of_least = resolution(problem, pair, gram, frame)
        margin, slack = tolerance * least, tolerance.sqrt()
        evidence, best = (weights, frame) if problem.nonneg else ([numbers], bound)
        said += implied_by(problem, evidence, at_point - best, claims, other)
        missed = consequences.most_missed(problem, gram) if problem.nonneg else arb(0)
        chains_hold = bool(missed <= slack)
        if status == "not certified":
            better = bounds.loss(problem, read_point(problem, *record(witness, "witness", "rows", "norms")))
            prove(at_point - better > (margin if chains_hold else arb(0)), "the better point is better")
            said.append("The point is no global minimiser: the file holds a better one.")
        prove(status == "certified", f"optimality (the file says: {status}). What holds: " + " ".join(said))
        prove(gap <= margin, "the gap is small enough for the status")
        prove(chains_hold, "the values that chains of batches fix or tie")
        prove(moved <= FARTHEST_MOVE, "H is near the certified point")
    chains = f"; it misses no value that batches fix or tie, in chains too (theory, 3.17), by more than {shown(missed)}"
    return [
        *said,
        f"So the point is a global minimiser within the gap: no feasible point has a loss lower by more than "
        f"{shown(gap)}, which is at most {shown(gap / least)} times {of_least}{chains if problem.nonneg else ''}.",
        f"Not checked: second opinion, reasons, sources; that labels {stated['samples_digest'][:16]} reduce to this "
        f"problem; that embedding {embedding[:16]} lies within {shown(moved)} of the point.",
    ]


def main(paths: list[str]) -> int:
    """Check files, whatever they hold, and print what was proved; the largest exit status."""
    if {"-h", "--help"} & set(paths):
        print(__doc__)
        return 0
    limit_factor = LARGE if "--large" in paths else 1
    paths = [path for path in paths if path != "--large"]
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
