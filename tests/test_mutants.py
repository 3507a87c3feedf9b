"""Certificates altered in their numbers, digests recomputed: what the checker still proves is true by other means."""

import copy
import io
import json
from collections import Counter
from contextlib import redirect_stdout, suppress

import mpmath
import numpy as np
import pytest
from flint import arb, ctx
from oracles import expanded, family_at
from problems import PROBLEMS
from problems import frame as orthogonal_frame
from test_checker import EVERYWHERE, sign, spoil
from test_ties import true_violation

import ufm
from solvers.certification.certifier import TOLERANCE, Certifier
from solvers.certification.constraints import smallest_weight
from solvers.certification.orbit_problem import OrbitProblem
from ufm.losses import Loss
from ufm_check import bounds, check, points, reading

DIGITS, CLOSE = 120, mpmath.mpf(10) ** -40


@pytest.fixture(scope="module")
def originals():
    """Contents of real certificates, by name: full batches, families, ties open, glued and in chains, no ReLU."""

    def content(problem, H, tolerance=TOLERANCE):
        return json.loads(Certifier(problem, conic=False, tolerance=tolerance).certify(H).serialised())

    def near(problem, size):
        """Certified with the coarsest tolerance: a gap that leaves something to imply. Rows off by `size`."""
        noise = np.abs(np.random.default_rng(0).standard_normal((problem.num_points, problem.d)))
        H = orthogonal_frame(problem) + size * noise[ufm.orbits(problem).index]
        return content(problem, H / np.linalg.norm(H, axis=1, keepdims=True), 0.01)

    def framed(problem):
        return content(problem, orthogonal_frame(problem))

    def best(problem):
        certifier = Certifier(problem, conic=False)
        return content(problem, certifier.better.placed()[certifier.orbits.index])

    tied = ufm.Problem([0] * 9 + [1] * 6, 3, 0.5, [list(range(6)) + list(range(9, 15)), [6, 7, 8], [6, 7], [7, 8]])
    chained = ufm.Problem([0] * 6 + [1] * 2, 3, 1.0, [[0, 1, 6, 7], [0, 1, 2], [1, 2, 3], [3, 4, 5]])
    axes = PROBLEMS["a class in two pieces"]()
    merged = np.eye(4, 5)[np.minimum(np.repeat(np.arange(4), [6, 4, 3, 2]), 2)]
    broken = np.eye(3)[[0] * 8 + [2] + [1] * 6]
    return {
        "frame": framed(PROBLEMS["four classes"]()),
        "frame, near": near(PROBLEMS["four classes"](), 1e-4),
        "tied, near": near(tied, 1e-4),
        "chained, near": near(chained, 1e-4),
        "merged": content(PROBLEMS["four classes"](), merged),
        "tied": framed(tied),
        "tie broken": content(tied, broken),
        "chained": framed(chained),
        "axes": framed(axes),
        "pieces": framed(PROBLEMS["two pieces"]()),
        "free": best(ufm.Problem.from_class_sizes([6, 4, 2], d=3, tau=0.5, nonneg=False)),
        "free family": best(ufm.Problem([0, 0, 0, 1, 1], 2, 1.0, [[0, 1, 3, 4], [0, 1, 2]], nonneg=False)),
    }


# The forger.


def blended(rng, content):
    """One row moved towards an axis, by all of the way or a little."""
    rows = content["point"]["rows"]
    a, share = int(rng.integers(len(rows))), 10.0 ** rng.uniform(-6, 0) if rng.random() < 0.8 else 1.0
    row = np.array([float.fromhex(x) for x in rows[a]])
    row = row / max(np.linalg.norm(row), 1e-300) * (1 - share) + share * np.eye(len(row))[rng.integers(len(row))]
    rows[a] = [float(x).hex() for x in row]


def moved(rng, content):
    """Any number in point, bound or claims, a little or much larger or smaller."""
    part = content[("point", "lower_bound", "claims")[rng.integers(3)]]
    places = [(node, key) for node, key in leaves(part) if isinstance(node[key], str)]
    places = [(node, key) for node, key in places if reading.HEX_DOUBLE.fullmatch(node[key])]
    node, key = places[rng.integers(len(places))]
    x = float.fromhex(node[key])
    choices = (x * (1 + rng.choice([-1, 1]) * 10.0 ** rng.uniform(-17, 0)), 0.0, 1.0, np.nextafter(x, -1), x / 2, 2 * x)
    node[key] = float(choices[rng.integers(len(choices))]).hex()


def leaves(node):
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(inner, dict | list):
            yield from leaves(inner)
        else:
            yield node, key


def claimed_implications(rng, content):
    """One kind of what the gap implies, sharper by a little or by all."""
    implied = content["claims"]["implied"]
    if implied is not None:
        field = sorted(implied)[rng.integers(len(implied))]
        share, best = rng.choice([0.0, 0.5, 0.999999]), float(field == "norm")
        rows = implied[field] if isinstance(implied[field][0], list) else [implied[field]]
        for c, row in enumerate(rows):
            row[:] = [x if len(rows) > 1 and c == e else towards(x, best, share) for e, x in enumerate(row)]


def towards(x, best, share):
    return float(best + share * (float.fromhex(x) - best)).hex()


def claimed_uniqueness(rng, content):
    """True, or False with the point, or with random axes, for another minimiser; everything that fits in form."""
    unique = (True, False, False, None)[rng.integers(4)]
    content["claims"]["unique"], content["other_minimiser"] = unique, None
    if unique is False:
        d, m = content["problem"]["d"], len(content["problem"]["sizes"])
        axes = np.eye(d)[rng.integers(0, d, m)]
        rows = content["point"]["rows"] if rng.random() < 0.3 else [[float(x).hex() for x in row] for row in axes]
        norms = [(1.0 if rng.random() < 0.9 else 0.0).hex() for _ in range(m)]
        content["other_minimiser"] = {"rows": rows, "norms": norms}


def claimed_margin(rng, content):
    content["claims"]["tolerance"] = (0.01 if rng.random() < 0.8 else 10.0 ** rng.uniform(-20, -2)).hex()


def claimed_status(rng, content):
    content["claims"]["status"], content["witness"] = "certified", None


def other_batches(rng, content):
    """The family thinned, repeated, merged or cut: what it forces changes, and the claims do not."""
    batches, m = content["problem"]["batches"], len(content["problem"]["sizes"])
    which, how = int(rng.integers(len(batches))), rng.integers(4)
    if how == 0:
        batches.pop(which)
    elif how == 1:
        batches.append(list(batches[which]))
    elif how == 2:
        batches[which] = sorted({*batches[which], int(rng.integers(m))})
    elif len(batches[which]) > 1:
        batches[which].pop(int(rng.integers(len(batches[which]))))


def other_sizes(rng, content):
    sizes = content["problem"]["sizes"]
    sizes[rng.integers(len(sizes))] = int(rng.integers(1, 4))


FORGERIES = (
    blended,
    moved,
    claimed_implications,
    claimed_uniqueness,
    claimed_margin,
    claimed_status,
    other_batches,
    other_sizes,
)


def consistent(content):
    """Upper and lower bound, gap and the frame's loss as they are after all: only the rest is forged."""
    problem = reading.read_problem(sign(content)["problem"], 1)
    with ctx.workprec(problem.bits):
        gram = points.read_point(problem, content["point"]["rows"], content["point"]["norms"])
        at, (low, _) = bounds.loss(problem, gram), check.lower_bound(problem, content["lower_bound"], frame(problem))
        up, down = (1 + arb(2) ** -50), (1 - arb(2) ** -50)
        numbers = {"upper": at * (up if at > 0 else down), "lower": low * (down if low > 0 else up)}
        numbers |= {"gap": (at - low).max(arb(0)) * up + arb(1e-70), "theoretical": frame(problem)}
    content["claims"] |= {name: float(x).hex() for name, x in numbers.items()}
    content["lower_bound"]["value"] = content["claims"]["lower"]


def frame(problem):
    return bounds.counted(problem)


def mutant(originals, seed):
    """A certificate with one to three things forged, signed anew."""
    rng = np.random.default_rng(seed)
    name = sorted(originals)[rng.integers(len(originals))]
    content = copy.deepcopy(originals[name])
    if rng.random() < 0.3:
        spoil(content, EVERYWHERE[rng.integers(len(EVERYWHERE))], int(rng.integers(8)), 10.0 ** rng.uniform(-9, -2))
    elif rng.random() < 0.5:  # nothing but a point a little worse than the minimiser, all the same claims, much allowed
        blended(rng, content)
        claimed_margin(rng, content)
        consistent(content)
    else:
        for which in rng.choice(len(FORGERIES), int(rng.integers(1, 4)), replace=False):
            FORGERIES[which](rng, content)
        if rng.random() < 0.6:
            with suppress(reading.Refusal):
                consistent(content)
    try:
        return name, sign(content)
    except KeyError:
        return name, content


# The truth.


def gram_of(point, digits=DIGITS):
    """The Gram matrix over orbits, in mpmath's digits."""
    rows = [[mpmath.mpf(float.fromhex(x)) for x in row] for row in point["rows"]]
    norms = [mpmath.mpf(float.fromhex(x)) for x in point["norms"]]
    lengths = [mpmath.sqrt(mpmath.fdot(row, row)) or mpmath.mpf(1) for row in rows]
    rows = [[r * x / length for x in row] for row, r, length in zip(rows, norms, lengths, strict=True)]
    return [[mpmath.fdot(x, y) for y in rows] for x in rows], rows


def problem_of(problem):
    """The problem of a file, a point an orbit."""
    model = {"tau": float.fromhex(problem["tau"]), "nonneg": problem["model"] == "UFM+"}
    arguments = {"multiplicity": problem["sizes"], "loss": Loss.of_description(problem["loss"])}
    return ufm.Problem(problem["classes"], problem["d"], batches=problem["batches"], **model, **arguments)


def loss_of(problem, gram):
    """The definition over orbits: samples of one orbit are alike."""
    return family_at(lambda a, b: gram[a][b], problem_of(problem))[0]


def means_of(problem, rows):
    """Class means, in mpmath's digits."""
    result = []
    for c in range(max(problem["classes"]) + 1):
        members = [a for a, label in enumerate(problem["classes"]) if label == c]
        n = sum(problem["sizes"][a] for a in members)
        result.append([mpmath.fsum(problem["sizes"][a] * rows[a][j] for a in members) / n for j in range(len(rows[0]))])
    return result


def contradicts(problem, implied, gram, rows):
    """What a point of no larger loss has that the claims exclude."""
    classes, sizes, wrong = problem["classes"], problem["sizes"], []
    means = means_of(problem, rows)
    norms = [mpmath.sqrt(mpmath.fdot(x, x)) for x in means]
    number = float.fromhex
    for c, norm in enumerate(norms):
        wrong += [f"norm {c}"] if norm < number(implied["norm"][c]) - CLOSE else []
        members = [a for a, label in enumerate(classes) if label == c]
        far = max(gram[a][a] + gram[b][b] - 2 * gram[a][b] for a in members for b in members)
        wrong += [f"spread {c}"] if far > number(implied["spread"][c]) ** 2 + CLOSE else []
        for e in range(c):
            if norm > 0 and norms[e] > 0:
                cosine = mpmath.fdot(means[c], means[e]) / (norm * norms[e])
                least = number(implied["least_cosine"][c][e]) if "least_cosine" in implied else 0.0
                inside = least - CLOSE <= cosine <= number(implied["cosine"][c][e]) + CLOSE
                wrong += [] if inside else [f"cosine {c}, {e}"]
    for batch in problem["batches"] if "tie" in implied else []:
        if len({classes[a] for a in batch}) == 1:
            for a in batch:
                values = [gram[a][b] for b in batch if sizes[b] > (a == b)]
                tie = number(implied["tie"][classes[a]])
                wrong += [f"tie {a}"] if values and max(values) - min(values) > tie + CLOSE else []
    return wrong


def assert_true(content, said, where):
    """Every sentence that was proved, by mpmath and by what `ufm` says of the problem."""
    problem, claims = content["problem"], content["claims"]
    number = {name: mpmath.mpf(float.fromhex(claims[name])) for name in ("upper", "lower", "gap", "tolerance")}
    nonneg, inputs = problem["model"] == "UFM+", problem_of(problem)
    full, origin = expanded(inputs)
    gram, rows = gram_of(content["point"])
    at = loss_of(problem, gram)
    assert number["lower"] <= at <= number["upper"], where
    axes = {"rows": np.eye(inputs.k, max(inputs.d, inputs.k))[problem["classes"]], "norms": np.ones(len(origin))}
    frame = [[mpmath.mpf(int(c == e)) for e in problem["classes"]] for c in problem["classes"]]
    others = [(frame, axes["rows"].tolist())] if inputs.d >= inputs.k else []
    if content["other_minimiser"] is not None:
        others.append(gram_of(content["other_minimiser"]))
        assert abs(loss_of(problem, others[-1][0]) - loss_of(problem, frame)) < CLOSE, where
        assert others[-1][0] != frame, where
    for theirs, _ in others:
        assert loss_of(problem, theirs) >= max(number["lower"], at - number["gap"]) - CLOSE, where
    for theirs, their_rows in [(gram, rows), *others] if claims["implied"] else ():
        if loss_of(problem, theirs) <= at + CLOSE:
            assert contradicts(problem, claims["implied"], theirs, their_rows) == [], where
    if nonneg and inputs.d >= inputs.k:
        assert loss_of(problem, gram) - loss_of(problem, frame) <= number["gap"], where
        H = np.array(rows, dtype=float)[origin]
        assert true_violation(full, H) <= float(number["tolerance"]) ** 0.5 + 1e-9, where
        assert ("All minimisers have one" not in said) or ufm.uniqueness(full).unique is True, where
        assert ("not the only minimiser" not in said) or ufm.uniqueness(full).unique is not True, where
        with ctx.workprec(200):
            least = smallest_weight(OrbitProblem.of(ufm.orbits(full).quotient))
        assert least is None or number["gap"] <= number["tolerance"] * float(least) * (1 + 1e-9), where
    elif "All minimisers have one" in said:
        assert problem["batches"], where
        assert min(problem["sizes"]) > 1 or "least_cosine" in claims["implied"], where


def judged(originals, seed, folder):
    """Name and exit status of one mutant; asserts that all that is proved of it is true."""
    name, content = mutant(originals, seed)
    (folder / "mutant.json").write_text(json.dumps(content))
    with redirect_stdout(io.StringIO()) as printed:
        status = check.main([str(folder / "mutant.json")])
    if status == 0:
        with mpmath.workdps(DIGITS):
            assert_true(content, printed.getvalue(), (seed, name))
    return name, status


def run(originals, seeds, folder):
    seen = Counter(judged(originals, seed, folder) for seed in seeds)
    print(seen.total(), "mutants, by exit status:", dict(Counter(status for _, status in seen.elements())))
    proved = {name for name, status in seen if status == 0}
    return seen, proved


def test_what_is_proved_of_an_altered_certificate_is_true(originals, tmp_path):
    _, proved = run(originals, range(10**6, 10**6 + 250), tmp_path)
    assert {"frame", "tied"} <= proved  # the truth is asked of something


@pytest.mark.slow
def test_ten_thousand_mutants_without_a_false_sentence(originals, tmp_path):
    seen, proved = run(originals, range(10_000), tmp_path)
    assert seen.total() == 10_000
    assert {"frame", "tied", "chained", "axes", "pieces", "free"} <= proved
    assert sum(count for (_, status), count in seen.items() if status == 1) > 2000
