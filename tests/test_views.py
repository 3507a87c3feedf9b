"""Expected losses of images with two views: what is certified of them, against the enumeration of all batches."""

import json
from itertools import chain, combinations, product

import numpy as np
import oracles
import pytest
from test_checker import NOT_PROVED, PROVED, UNREADABLE, digest
from test_uniqueness import brute_force

import solvers
import ufm
from solvers.certification.certifier import Certifier, serialised_samples
from ufm import samplers
from ufm_check import check


class Law:
    """All batches of a sampler of images with two views, each with its probability, from its definition alone.

    - sizes: images a class. labels: of the samples, i and i + images the views of image i.
    - batches: for each number of samples, (batches, samples) and their probabilities (batches,).
    """

    def __init__(self, kind, numbers, sizes, bound):
        self.images = sum(sizes)
        of = np.repeat(np.arange(len(sizes)), sizes)
        self.sizes, self.labels = sizes, np.tile(of, 2)
        units = [np.flatnonzero(of == c).tolist() for c in range(len(sizes))]
        binding = {i for members in units for i in members[:bound]}
        result = {}
        for share, drawn in DRAWN[kind](units, *numbers):
            for images in drawn:
                held = tuple(sorted(binding | set(images)))
                result[held] = result.get(held, 0.0) + share / len(drawn)
        assert sum(result.values()) == pytest.approx(1)
        self.probability = {(*held, *(i + self.images for i in held)): share for held, share in result.items()}
        self.batches = {}
        for batch, share in self.probability.items():
            rows, compositions = self.batches.setdefault(len(batch), ([], []))
            rows.append(batch)
            compositions.append(share)
        self.batches = [(np.array(rows), np.array(compositions)) for rows, compositions in self.batches.values()]

    def loss(self, H, tau):
        """The expected loss of SCL at any rows of all samples, and its gradient."""
        value, slope = 0.0, np.zeros_like(H)
        for rows, share in self.batches:
            X, y = H[rows], self.labels[rows]
            G = X @ X.transpose(0, 2, 1) / tau
            G[:, np.arange(len(rows[0])), np.arange(len(rows[0]))] = -np.inf
            positive = (y[:, :, None] == y[:, None, :]) & np.isfinite(G)
            p = positive.sum(axis=2)
            top = G.max(axis=2, keepdims=True)
            terms = np.exp(G - top)
            total = terms.sum(axis=2)
            mean = np.where(positive, G, 0.0).sum(axis=2) / np.maximum(p, 1)
            value += float((share[:, None] * (p > 0) * (np.log(total) + top[:, :, 0] - mean)).sum())
            gradient_scale = (p > 0)[:, :, None] * (terms / total[:, :, None] - positive / np.maximum(p, 1)[:, :, None])
            gradient_scale *= share[:, None, None]
            np.add.at(slope, rows, (gradient_scale + gradient_scale.transpose(0, 2, 1)) @ X / tau)
        return value, slope

    def attraction(self, tau):
        """A of theory, 2.6, of all pairs of samples."""
        A = np.zeros((len(self.labels),) * 2)
        for batch, share in self.probability.items():
            count = np.bincount(self.labels[list(batch)])
            for i, j in product(batch, batch):
                p = count[self.labels[i]] - 1
                q = (len(batch) - p - 1) * np.exp(-1 / tau)
                if i != j and self.labels[i] == self.labels[j]:
                    A[i, j] += share * q / (p * (p + q) * tau)
        return A


def uniform(units, size):
    yield 1.0, list(combinations(chain.from_iterable(units), size))


def reshuffled(units, size):
    full, rest = divmod(sum(map(len, units)), size)
    for number, held in ((full, size), (1, rest)):
        if held:
            yield number / (full + (rest > 0)), list(combinations(chain.from_iterable(units), held))


def class_balanced(units, size):
    level = max(t for t in range(size + 1) if sum(min(len(members), t) for members in units) <= size)
    base = [min(len(members), level) for members in units]
    more = list(combinations([c for c, members in enumerate(units) if len(members) > level], size - sum(base)))
    for chosen in more:
        counts = [n + (c in chosen) for c, n in enumerate(base)]
        yield 1 / len(more), joined([combinations(members, n) for members, n in zip(units, counts, strict=True)])


def m_per_class(units, m, p):
    classes = list(combinations(units, p))
    for chosen in classes:
        yield 1 / len(classes), joined([combinations(members, m) for members in chosen])


def joined(of_classes):
    return [tuple(chain.from_iterable(parts)) for parts in product(*map(list, of_classes))]


DRAWN = {"uniform": uniform, "reshuffled": reshuffled, "class_balanced": class_balanced, "m_per_class": m_per_class}


def random_law(seed):
    """A sampler, bound or not, of two or three classes of up to three images, d and tau."""
    rng = np.random.default_rng([24, seed])
    k = int(rng.integers(2, 4))
    sizes = rng.integers(1, 5 - (k == 3), k).tolist()
    kind = list(DRAWN)[seed % 4]
    bound = int(rng.integers(0, min(sizes) + 1)) * int(rng.random() < 0.4)
    numbers = (int(rng.integers(2, sum(sizes) + 1)),)
    if kind == "m_per_class":
        m = int(rng.integers(1, min(sizes) + 1))
        numbers = m, int(rng.integers(1 + (m == 1), k + 1))
    sampler = samplers.two_views(getattr(samplers, kind)(*numbers))
    law = Law(kind, numbers, sizes, bound)
    d, tau = k + int(rng.integers(0, 2)), float(rng.choice([0.12, 0.3, 0.5, 1.0]))
    return sampler.bound(bound) if bound else sampler, law, d, tau


def points_of(law, problem):
    """The point of the problem that each sample belongs to: binding images are the first of their class."""
    labels, k = np.asarray(problem.labels), int(problem.k)
    if len(labels) == k:
        return law.labels
    m, others = np.asarray(problem.multiplicity)[0] // 2, labels[k:].tolist()
    rank = np.concatenate([np.arange(n) for n in law.sizes] * 2)
    return np.array([c if i < m else k + others.index(c) for c, i in zip(law.labels, rank, strict=True)])


def descended(law, H, tau, nonneg, steps=400):
    """The lowest loss met by projected gradient steps that may grow."""

    def inside(H):
        H = np.maximum(H, 0.0) if nonneg else H
        return H / np.maximum(np.linalg.norm(H, axis=1, keepdims=True), 1.0)

    H, step = inside(H), 0.5
    best, slope = law.loss(H, tau)
    for _ in range(steps):
        moved = inside(H - step * slope)
        value, gradient_scale = law.loss(moved, tau)
        if value < best:
            best, H, slope, step = value, moved, gradient_scale, 2 * step
        elif step < 1e-14:
            break
        else:
            step /= 4
    return best


def widest(law, frame, direction, tau, most):
    """A point of no larger loss than `most`: samples are turned from the frame by `direction` to a free coordinate."""

    def turned(t):
        return np.cos(t * direction)[:, None] * frame + np.sin(t * direction)[:, None] * np.eye(frame.shape[1])[-1]

    low, high = 0.0, np.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if law.loss(turned(middle), tau)[0] <= most else (low, middle)
    return turned(low)


def check_widths(law, certificate, tau, most, seed):
    """Points of no larger loss than the certified one, with the samples of images, and of views, apart."""
    rng, n, k = np.random.default_rng(seed), len(law.labels), law.labels.max() + 1
    frame, A = np.eye(k, k + 1)[law.labels], law.attraction(tau)
    resistance = np.linalg.pinv(np.diag(A.sum(axis=1)) - A)
    i, j = rng.permutation(np.flatnonzero(law.labels == rng.integers(k)))[:2]
    others = np.abs(rng.standard_normal(n))
    # One sample, one image, the widest way between two samples, any way.
    between = resistance[i] - resistance[j]
    between = np.where(law.labels == law.labels[i], between - between.min(), 0.0)
    ways = [np.eye(n)[i], np.eye(n)[i] + np.eye(n)[(i + law.images) % n], between, others]
    for direction in ways:
        H = widest(law, frame, direction / max(direction.max(), 1e-300), tau, most)
        assert law.loss(H, tau)[0] <= most
        for c in range(k):
            members = H[law.labels == c]
            width = np.linalg.norm(members[:, None] - members[None], axis=2).max()
            assert width <= certificate.implied.spread[c] + 1e-9, (c, width)
            assert np.linalg.norm(members.mean(axis=0)) >= certificate.implied.norm[c] - 1e-9


def check_with_the_relu(sampler, law, d, tau, seed, path):
    k, labels = law.labels.max() + 1, law.labels
    problem = ufm.Problem.expected(2 * np.array(law.sizes), sampler, d, tau)
    of = points_of(law, problem)
    certificate = solvers.certify(np.eye(k, d)[np.asarray(problem.labels)], problem, conic=False)
    frame = np.eye(k, d)[labels]
    assert certificate.status == "certified"
    bound = sum(p * float(oracles.bound(labels, tau, [batch])) for batch, p in law.probability.items())
    assert certificate.lower == pytest.approx(bound, rel=1e-12)
    assert law.loss(frame, tau)[0] == pytest.approx(certificate.upper, rel=1e-12)
    start = np.abs(np.random.default_rng(seed).standard_normal((len(labels), d)))
    assert descended(law, start, tau, True, 60) >= certificate.lower * (1 - 1e-12) - 1e-13
    # What all batches together force, by the other rules, and by every placement on axes where these are few.
    if certificate.unique:
        every = [[*batch, *[-1] * (len(labels) - len(batch))] for batch in law.probability]
        assert ufm.uniqueness(ufm.Problem(labels, d, tau, every)).unique is True
        assert len(labels) > 8 or not brute_force(labels, list(law.probability), d)
    # A point near the frame, and all samples anywhere at no larger loss.
    tilted = np.eye(k, k + 1)
    tilted[0] = np.cos(0.05) * tilted[0] + np.sin(0.05) * tilted[1]
    wider = ufm.Problem.expected(2 * np.array(law.sizes), sampler, k + 1, tau)
    beside = solvers.certify(tilted[np.asarray(wider.labels)], wider, conic=False)
    most = law.loss(tilted[np.asarray(wider.labels)[of]], tau)[0]
    check_widths(law, beside, tau, most, seed)
    for number, one in enumerate((certificate, beside)):
        one.save(path / f"{number}")
        proved = PROVED if one.status == "certified" else NOT_PROVED
        assert check.main([str(path / f"{number}")]) == proved
        assert solvers.Certificate.load(path / f"{number}").serialised() == one.serialised()
    return certificate.unique


def check_without(sampler, law, d, tau, seed, path):
    """Nothing is claimed of samples; the least value is."""
    problem = ufm.Problem.expected(2 * np.array(law.sizes), sampler, d, tau, nonneg=False)
    certifier = Certifier(problem, conic=False)
    point = certifier.better.placed()
    certificate = certifier.certify(point)
    assert certificate.status == "certified", certificate.reason
    assert certificate.implied is certificate.unique is None
    H = point[points_of(law, problem)]
    assert law.loss(H, tau)[0] == pytest.approx(certificate.upper, rel=1e-12)
    rng = np.random.default_rng(seed)
    for start in (H + 0.01 * rng.standard_normal(H.shape), rng.standard_normal(H.shape)):
        assert descended(law, start, tau, False) >= certificate.lower * (1 - 1e-12) - 1e-13
    certificate.save(path / "free")
    assert check.main([str(path / "free")]) == PROVED


def check_law(seed, path):
    sampler, law, d, tau = random_law(seed)
    unique = check_with_the_relu(sampler, law, d, tau, seed, path)
    if (
        refused := len(set(points_of(law, ufm.Problem.expected(2 * np.array(law.sizes), sampler, d, tau))))
        > max(law.labels) + 1
    ):
        with pytest.raises(ufm.InvalidInput, match="views of one image may have different rows"):
            check_without(sampler, law, d, tau, seed, path)
    else:
        check_without(sampler, law, d, tau, seed, path)
    return unique, refused


@pytest.mark.parametrize("seed", range(8))
def test_what_is_certified_is_true_of_all_batches(seed, tmp_path, untyped):
    check_law(seed, tmp_path)


@pytest.mark.slow
def test_two_hundred_laws(tmp_path, untyped):
    result = [check_law(seed, tmp_path) for seed in range(200)]
    print({kind: result.count(kind) for kind in set(result)})
    assert sum(unique is True for unique, _ in result) > 100
    assert sum(unique is None for unique, _ in result) > 20
    assert sum(refused for _, refused in result) > 30


IMAGES_APART = samplers.two_views(samplers.m_per_class(1, 2))


@pytest.mark.parametrize(("d", "unique"), [(2, True), (3, None)])
def test_images_that_never_meet_are_not_one_vector(d, unique):
    """One image a class: only d = k holds the images of a class together."""
    problem = ufm.Problem.expected([6, 6], IMAGES_APART, d, 0.5)
    certificate = solvers.certify(np.eye(2, d)[np.asarray(problem.labels)], problem, conic=False)
    assert certificate.status == "certified"
    assert certificate.unique is unique
    assert certificate.implied.spread == (2.0, 2.0)
    alone = ufm.Problem.expected([2, 6], IMAGES_APART, d, 0.5)
    implied = solvers.certify(np.eye(2, d)[np.asarray(alone.labels)], alone, conic=False).implied
    assert implied.spread[0] < 1e-12
    assert implied.spread[1] == 2.0


def test_bound_views_part_without_the_relu():
    """Why UFM refuses them: a point certified as if all samples but the bound ones were alike is no minimiser."""
    sizes, sampler, k, d, tau = [20, 20, 4], samplers.two_views(samplers.uniform(5).bound(1)), 3, 4, 0.12
    with pytest.raises(ufm.InvalidInput, match=r"sampler = TwoViews.* views of one image may have different rows"):
        ufm.Problem.expected(sizes, sampler, d, tau, nonneg=False)
    of = ufm.Problem.expected(sizes, sampler, d, tau)
    held = np.zeros((len(of.batches), 9), dtype=int)  # binding samples, first views, second views
    for row, batch, counts in zip(held, np.asarray(of.batches), np.asarray(of.counts, dtype=int), strict=True):
        row[batch[batch >= 0]] = counts[batch >= 0]
    held[:, 6:] = held[:, 3:6] // 2
    held[:, 3:6] -= held[:, 6:]

    def made(held, multiplicity):
        order = np.argsort(held == 0, axis=1, kind="stable")
        counts = np.take_along_axis(held, order, axis=1)
        labels, batches = np.arange(held.shape[1]) % k, np.where(counts > 0, order, -1)
        compositions = {"counts": counts, "weights": of.weights, "multiplicity": multiplicity}
        return ufm.Problem(labels, d, tau, batches, False, **compositions)

    alike = made(np.concatenate([held[:, :3], held[:, 3:6] + held[:, 6:]], axis=1), [2, 2, 2, 18, 18, 2])
    apart = made(held, [2, 2, 2, 9, 9, 1, 9, 9, 1])
    certifier = Certifier(alike, conic=False)
    H = certifier.better.placed()
    assert certifier.certify(H).status == "certified"
    rows, free = np.concatenate([H, H[3:]]), np.linalg.svd(H)[2][-1]
    assert float(ufm.scl_loss(rows, apart)) == pytest.approx(certifier.lower_bound.value, rel=1e-13)
    rows[[3, 4]] = np.cos(0.001) * rows[[3, 4]] + np.sin(0.001) * free
    rows[[6, 7]] = np.cos(0.001) * rows[[6, 7]] - np.sin(0.001) * free
    assert float(ufm.scl_loss(rows, apart)) < certifier.lower_bound.value - 1e-10


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Files of the same counts: of images with two views, of samples, and of UFM with two points a class."""
    folder = tmp_path_factory.mktemp("views")
    for name, sampler, nonneg in [
        ("views", IMAGES_APART, True),
        ("samples", samplers.m_per_class(2, 2), True),
        ("odd", samplers.uniform(3), True),
        ("free", samplers.two_views(samplers.uniform(3)), False),
        ("free, bound", None, False),
    ]:
        if sampler is None:
            compositions = {"multiplicity": [2, 2, 4, 4], "counts": [[2, 2, 2, 2]]}
            problem = ufm.Problem([0, 1, 0, 1], 3, 0.5, [[0, 1, 2, 3]], nonneg, **compositions)
        else:
            problem = ufm.Problem.expected([6, 6], sampler, 3, 0.5, nonneg)
        certifier = Certifier(problem, conic=False)
        certifier.certify(certifier.better.placed()).save(folder / name)
    return folder


def test_the_sentences_say_what_is_drawn(saved, capsys):
    for name, units in [("views", "images of two views"), ("free", "images of two views"), ("samples", "samples")]:
        assert check.main([str(saved / name)]) == PROVED
        assert f"where all choices of that many {units} of an orbit are equally likely" in capsys.readouterr().out


def views(value):
    return lambda problem: problem.update(views=value)


@pytest.mark.parametrize(
    ("name", "change", "status"),
    [
        ("samples", views(2), NOT_PROVED),  # what is unique of samples is not of images
        ("views", lambda problem: problem.pop("views"), PROVED),  # of samples the same is true
        ("odd", views(2), UNREADABLE),
        ("free, bound", views(2), NOT_PROVED),
        ("views", views(1), UNREADABLE),
        ("views", views(2.0), UNREADABLE),
        ("views", views(True), UNREADABLE),
        ("views", views("2"), UNREADABLE),
        ("views", views([2]), UNREADABLE),
        ("views", lambda problem: problem["counts"].__setitem__(0, 7), UNREADABLE),
        ("views", lambda problem: (problem.pop("counts"), problem.pop("weights")), UNREADABLE),
    ],
)
def test_no_forged_file_claims_more(saved, name, change, status, tmp_path):
    content = json.loads((saved / name).read_text())
    content.pop("checksum")
    problem = content["problem"]
    change(problem)
    problem["digest"] = digest({x: y for x, y in problem.items() if x not in ("digest", "samples_digest")})
    content["checksum"] = digest(content)
    (tmp_path / "forged").write_text(json.dumps(content))
    assert check.main([str(tmp_path / "forged")]) == status


def test_digests_and_displays_know_the_views():
    problems = [ufm.Problem.expected([6, 6], one, 3, 0.5) for one in (IMAGES_APART, samplers.m_per_class(2, 2))]
    assert len({serialised_samples(problem) for problem in problems}) == 2
    assert ["images with two views" in repr(problem) for problem in problems] == [True, False]


SHARES = {"multiplicity": [4, 4], "batches": [[0, 1]], "counts": [[2, 2]]}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ufm.Problem([0, 1], 2, views=0), "views = 0"),
        (lambda: ufm.Problem([0, 1], 2, views=2), "views = 2: give 1; or 2, with counts"),
        (lambda: ufm.Problem([0, 1], 2, views=3, **SHARES), "views = 3"),
        (lambda: ufm.Problem([0, 1], 2, views=2, **SHARES | {"counts": [[1, 2]]}), "even"),
        (lambda: ufm.Problem([0, 1], 2, views=2, **SHARES | {"multiplicity": [4, 3]}), "even"),
        (
            lambda: ufm.Problem(
                [0, 1, 1], 2, 1.0, [[0, 1, 2]], False, views=2, multiplicity=[2, 2, 2], counts=[[2, 2, 2]]
            ),
            "one point for each class",
        ),
    ],
)
def test_bad_views(call, named, untyped):
    with pytest.raises(ufm.InvalidInput, match=named):
        call()
