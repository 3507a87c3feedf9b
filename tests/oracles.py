"""Slow and plain: the definitions of the paper, written down once more without the package's tricks.

Everything takes lists of distinct sample indices as batches; `arithmetic` is `math` for float64 or
`mpmath.mp` for as many digits as the context holds.
"""

import math
from itertools import combinations

import jax.numpy as jnp
import mpmath
import numpy as np

import ufm
from ufm.losses import SHAPES


def _number(arithmetic, x):
    return mpmath.mpf(float(x)) if arithmetic is mpmath.mp else float(x)


def _total(arithmetic, terms):
    return mpmath.fsum(terms) if arithmetic is mpmath.mp else math.fsum(terms)


def scl(H, labels, tau, batches, arithmetic=mpmath.mp):
    """sum_B sum_{active i in B} log sum_{l != i} exp(G_il/tau) - mean_{positives j} G_ij/tau."""
    rows = [[_number(arithmetic, x) for x in row] for row in np.asarray(H)]
    tau = _number(arithmetic, tau)

    def similarity(i, j):
        return _total(arithmetic, [a * b for a, b in zip(rows[i], rows[j], strict=True)]) / tau

    losses = []
    for batch in batches:
        for i in batch:
            others = [j for j in batch if j != i]
            positives = [j for j in others if labels[j] == labels[i]]
            if positives:
                to = {j: similarity(i, j) for j in others}
                mean = _total(arithmetic, [to[j] for j in positives]) / len(positives)
                losses.append(arithmetic.log(_total(arithmetic, [arithmetic.exp(to[j]) for j in others])) - mean)
    return _total(arithmetic, losses)


def bound(labels, tau, batches, arithmetic=mpmath.mp):
    """sum_B sum_{c: n_{B,c} >= 2} n_{B,c} log((n_{B,c} - 1) + (n_B - n_{B,c}) exp(-1/tau))."""
    tau = _number(arithmetic, tau)
    terms = []
    for batch in batches:
        members = [int(labels[i]) for i in batch]
        for c in set(members):
            count = members.count(c)
            if count >= 2:
                Z = (count - 1) + (len(batch) - count) * arithmetic.exp(-1 / tau)
                terms.append(count * arithmetic.log(Z))
    return _total(arithmetic, terms)


def scl_jnp(H, labels, tau, batches):
    """The same loss in jax.numpy by plain loops over anchors, for automatic differentiation."""
    G = H @ H.T / tau
    total = 0.0
    for batch in batches:
        for i in batch:
            others = np.array([j for j in batch if j != i], dtype=int)
            positives = np.array([j for j in others if labels[j] == labels[i]], dtype=int)
            if len(positives):
                total = total + jnp.log(jnp.sum(jnp.exp(G[i, others]))) - jnp.mean(G[i, positives])
    return total


def family(H, problem):
    """The definitions of the family (theory, 1.5) in mpmath's digits: the loss and its bound (theory, 2.14), summed."""
    rows = [[mpmath.mpf(x) for x in row] for row in (H.tolist() if isinstance(H, np.ndarray) else H)]
    return family_at(lambda i, j: mpmath.fdot(rows[i], rows[j]), problem)


def family_at(gram, problem):
    """The same of points with these inner products."""
    one, loss, k = mpmath.mpf(1), problem.loss, problem.k
    labels = np.asarray(problem.labels).tolist()
    times = [int(x) for x in np.asarray(problem.multiplicity)]
    n = [sum(t for t, y in zip(times, labels, strict=True) if y == c) for c in range(k)]
    at = {name: None if x is None else np.asarray(x).tolist() for name, x in vars(loss).items() if name in SHAPES}
    tau = [mpmath.mpf(float(problem.tau)) * (1 if at["taus"] is None else mpmath.mpf(at["taus"][c])) for c in range(k)]

    def margin(c, e, of_class):
        a = mpmath.mpf(0) if at["margins"] is None else mpmath.mpf(at["margins"][c][e])
        a += 0 if at["strength"] is None else mpmath.mpf(at["strength"]) * mpmath.log(n[e])
        return a - (mpmath.log(of_class[e] - (c == e)) if loss.averaged else 0)

    total, bound = [], []
    for batch in batch_lists(problem):
        members = [i for i in batch for _ in range(times[i])]
        of_class = [sum(labels[i] == c for i in members) for c in range(k)]
        for place, i in enumerate(members):
            c, others = labels[i], members[:place] + members[place + 1 :]
            pos, neg = ([j for j in others if (labels[j] == c) is alike] for alike in (True, False))
            if not pos or not (neg or loss.positives_in_denominator):
                continue
            s = one / tau[c]
            G = {j: gram(i, j) for j in set(others)}
            frame = {j: one * (labels[j] == c) for j in set(others)}
            for result, x in ((total, G), (bound, frame)):
                if loss.kind == "sigmoid":
                    t, b = mpmath.mpf(at["scale"]) * s, mpmath.mpf(at["bias"])
                    result += [mpmath.log1p(mpmath.exp(-t * x[j] - b)) for j in pos]
                    result += [mpmath.log1p(mpmath.exp(t * x[j] + b)) for j in neg]
                elif loss.kind == "supcon-in":
                    inside = mpmath.fsum(mpmath.exp(s * x[j]) for j in pos) / len(pos)
                    result.append(-mpmath.log(inside / mpmath.fsum(mpmath.exp(s * x[j]) for j in others)))
                else:
                    held = others if loss.positives_in_denominator else neg
                    a = {e: margin(c, e, of_class) for e in {labels[j] for j in held}}
                    partition = mpmath.fsum(mpmath.exp(a[labels[j]] + s * x[j]) for j in held)
                    omega = one if at["weights"] is None else mpmath.mpf(at["weights"][c])
                    result.append(omega * (mpmath.log(partition) - s * mpmath.fsum(x[j] for j in pos) / len(pos)))
    return mpmath.fsum(total), mpmath.fsum(bound)


def metrics(H, labels, k):
    """`ufm.GeometryMetrics` by the definitions (theory, 5.13), in mpmath's digits; beta_nc by eigenvectors of S_B."""
    rows = [mpmath.matrix([mpmath.mpf(x) for x in row]) for row in np.asarray(H, dtype=float).tolist()]
    n, d, nothing = len(rows), len(rows[0]), mpmath.zeros(len(rows[0]), 1)
    members = [[row for row, label in zip(rows, labels, strict=True) if label == c] for c in range(k)]
    means = [sum(of_class, nothing) / max(len(of_class), 1) for of_class in members]
    gram = mpmath.matrix(k, k)
    for c, e in ((c, e) for c in range(k) for e in range(k)):
        gram[c, e] = mpmath.fdot(means[c], means[e])
    size = mpmath.norm(gram) if any(gram) else mpmath.mpf(1)
    delta_gm = mpmath.norm(gram / size - mpmath.eye(k) / mpmath.sqrt(k))
    norms = [mpmath.sqrt(gram[c, c]) or mpmath.mpf(1) for c in range(k)]
    cosines = [gram[c, e] / (norms[c] * norms[e]) for c in range(k) for e in range(k) if c != e]
    offsets = [row - means[label] for row, label in zip(rows, labels, strict=True)]
    trace_sw = mpmath.fsum(mpmath.fdot(x, x) for x in offsets) / n
    centre = sum(means, nothing) / k
    S_B = sum(((mean - centre) * (mean - centre).T for mean in means), mpmath.zeros(d)) / k
    values, vectors = mpmath.eigsy(S_B)
    beta_nc, spread = mpmath.mpf(0), max([abs(x) for x in values])
    for j in range(d):
        if spread and values[j] > spread * mpmath.mpf(10) ** -25:  # the others are 0 but for rounding
            along = mpmath.fsum(mpmath.fdot(x, vectors[:, j]) ** 2 for x in offsets) / n
            beta_nc += along / values[j] / k
    return delta_gm, beta_nc, trace_sw, mpmath.fsum(cosines) / len(cosines), max(cosines), gram


def gram_gradient(H, labels, tau, batches):
    """C with C_il the derivative of the losses of anchor i (all batches) in G_il; dense, float64."""
    G = np.asarray(H) @ np.asarray(H).T / tau
    C = np.zeros_like(G)
    for batch in batches:
        for i in batch:
            others = np.array([j for j in batch if j != i], dtype=int)
            positives = [j for j in others if labels[j] == labels[i]]
            if positives:
                softmax = np.exp(G[i, others] - G[i, others].max())
                C[i, others] += softmax / softmax.sum() / tau
                C[i, positives] -= 1 / len(positives) / tau
    return C


def gradient(H, labels, tau, batches):
    """Gradient of the loss in H from the softmax weights, in mpmath's digits, rounded at the end."""
    rows = mpmath.matrix(np.asarray(H).tolist())
    G = rows * rows.T / mpmath.mpf(float(tau))
    C = mpmath.zeros(len(labels))
    for batch in batches:
        for i in batch:
            others = [j for j in batch if j != i]
            positives = [j for j in others if labels[j] == labels[i]]
            if positives:
                weights = {j: mpmath.exp(G[i, j]) for j in others}
                partition = mpmath.fsum(weights.values())
                for j in others:
                    C[i, j] += weights[j] / partition - (mpmath.mpf(j in positives) / len(positives))
    return np.array(((C + C.T) * rows / mpmath.mpf(float(tau))).tolist(), dtype=float)


def evaluation(H, problem):
    """Of the rows of a problem, multiplicities counted, from the definitions and in mpmath's digits:

    loss; its excess over the bound; the sum over anchors of |their share of the excess|; the gradient (m, d); the
    forces (m,), sum over l of |C_il| + |C_li|, C = d loss / d G; and what cancels in them, the repulsion and the
    attraction of every pair, summed alike.
    """
    labels, times = np.asarray(problem.labels), [int(x) for x in np.asarray(problem.multiplicity)]
    rows = mpmath.matrix(np.asarray(H).tolist())
    tau, m = mpmath.mpf(float(problem.tau)), len(labels)
    G, C = rows * rows.T / tau, mpmath.zeros(m)
    gradient_scale, cancelling = [mpmath.mpf(0)] * m, [mpmath.mpf(0)] * m
    losses, compositions = [], []
    for batch in batch_lists(problem):
        batch = [i for i in batch if times[i] > 0]
        for i in batch:
            others = {j: times[j] - (j == i) for j in batch}
            positives = sum(count for j, count in others.items() if labels[j] == labels[i])
            if positives == 0:
                continue
            weights = {j: count * mpmath.exp(G[i, j]) for j, count in others.items()}
            pull = {j: mpmath.mpf(others[j] * bool(labels[j] == labels[i])) / positives for j in batch}
            partition = mpmath.fsum(weights.values())
            loss = mpmath.log(partition) - mpmath.fsum(pull[j] * G[i, j] for j in batch)
            Z = positives + (sum(others.values()) - positives) * mpmath.exp(-1 / tau)
            losses.append(times[i] * loss)
            compositions.append(times[i] * (loss - mpmath.log(Z)))
            for j in batch:
                c = times[i] * (weights[j] / partition - pull[j]) / tau
                C[i, j] += c
                both = times[i] * (weights[j] / partition + pull[j]) / tau
                for point in (i, j):
                    gradient_scale[point] += abs(c)
                    cancelling[point] += both
    return (
        mpmath.fsum(losses),
        mpmath.fsum(compositions),
        mpmath.fsum(map(abs, compositions)),
        (C + C.T) * rows,
        gradient_scale,
        cancelling,
    )


def batch_lists(problem):
    """The batches of a problem as lists of indices."""
    return [[int(i) for i in row if i >= 0] for row in np.asarray(problem.batches)]


def expanded(problem):
    """The problem with every point repeated by its multiplicity, and the point each row came from."""
    times = np.asarray(problem.multiplicity).astype(int)
    origin = np.repeat(np.arange(len(times)), times)
    batches = [np.flatnonzero(np.isin(origin, batch)) for batch in batch_lists(problem)]
    full = ufm.Problem(
        np.asarray(problem.labels)[origin], problem.d, float(problem.tau), batches, problem.nonneg, loss=problem.loss
    )
    return full, origin


def orthogonal_frame(labels, d):
    """Every sample on the coordinate axis of its class."""
    return np.eye(max(labels) + 1, d)[np.asarray(labels)]


def random_batches(rng, labels, count):
    """A batch of everything, random overlapping ones, a singleton and (count >= 3) a single-class one."""
    n = len(labels)
    batches = [list(range(n)), [int(rng.integers(n))]]
    batches.append([int(i) for i in np.flatnonzero(np.asarray(labels) == rng.integers(max(labels) + 1))])
    while len(batches) < count:
        batches.append([int(i) for i in rng.permutation(n)[: rng.integers(2, n)]])
    return batches


def random_rows(rng, kind, labels, d):
    """Feasible rows. kind: ufm+, ufm, zeros (some rows zero), duplicates, near (an orthogonal frame)."""
    n = len(labels)
    H = rng.normal(size=(n, d))
    H = H / np.linalg.norm(H, axis=1, keepdims=True) * rng.uniform(0, 1, (n, 1)) ** 0.3
    if kind == "ufm":
        return H
    H = np.abs(H)
    if kind == "zeros":
        H[rng.integers(n, size=3)] = 0
    if kind == "duplicates":
        H = H[rng.integers(n, size=n)]
    if kind == "near":
        H = (1 - 1e-7) * orthogonal_frame(labels, d) + 1e-7 * H
    return H


def pairs(n):
    """All unordered pairs of 0..n-1."""
    return list(combinations(range(n), 2))
