"""Random batch families: overlapping, disjoint, singletons, single-class, bound, and glued pairs."""

import numpy as np

from ufm import Problem, batching

KINDS = ("any", "open", "small", "partition", "reshuffled", "bound", "pairs")
SMALLEST, LARGEST = 4, 16


def random_labels(rng, n, k):
    return rng.permutation(np.concatenate([np.arange(k), rng.integers(0, k, n - k)]))


def random_batches(rng, labels, kind):
    """Lists of sample indices. Samples may be left without a batch, and batches may be singletons."""
    n, k = len(labels), int(labels.max()) + 1
    seed = int(rng.integers(2**31))
    if kind == "partition":
        return batching.partition(n, int(rng.integers(2, n + 1)), seed)
    if kind == "reshuffled":
        return batching.reshuffled(n, int(rng.integers(max(2, n // 2), n + 1)), int(rng.integers(2, 4)), seed)
    if kind == "bound":
        return batching.bind(batching.partition(n, int(rng.integers(2, n + 1)), seed), labels, 1, seed)
    if kind == "pairs":  # glued pairs with a cross edge here and there: colouring problems
        pairs = [(c, rng.permutation(np.flatnonzero(labels == c))) for c in range(k)]
        pairs = [(c, p) for c, members in pairs for p in np.split(members[: len(members) // 2 * 2], len(members) // 2)]
        density = rng.uniform(0.4, 1.0)
        joined = [np.concatenate([p, q]) for i, (c, p) in enumerate(pairs) for e, q in pairs[:i] if c != e]
        return [batch for batch in joined if rng.random() < density] or [np.arange(n)]
    batches = []
    for _ in range(rng.integers(1, 7)):
        pool = np.arange(n)
        if kind == "open" and rng.random() < 0.6:
            pool = np.flatnonzero(labels == rng.integers(k))
        size = min(len(pool), rng.integers(1, 4)) if kind == "small" else rng.integers(1, len(pool) + 1)
        batches.append(rng.permutation(pool)[:size])
    return batches


def random_problem(rng, k, d, tau=1.0):
    """A problem of k classes in d dimensions, and the kind of its batch family."""
    kind = str(rng.choice(KINDS))
    n = int(rng.integers(max(k, SMALLEST), LARGEST + 1))
    if kind == "pairs":
        labels = np.repeat(np.arange(k), 2 * rng.integers(1, 1 + LARGEST // (2 * k), k))
    else:
        labels = random_labels(rng, n, k)
    batches = random_batches(rng, labels, kind)
    return Problem(labels, d, tau, batches), kind
