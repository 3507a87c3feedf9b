"""Random batch families: overlapping, disjoint, singletons, single-class, bound, and glued pairs."""

import numpy as np

from ufm import Problem, batching, losses

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


def _weights(rng, k):
    return 10.0 ** rng.uniform(-6, 6, k)


def _margins(rng, k, size=8.0):
    return size * rng.standard_normal((k, k))


def _taus(rng, k):
    return rng.uniform(0.5, 3.0, k)


# A loss of k classes by name, its numbers random.
LOSSES = {
    "scl": lambda rng, k: losses.scl(),
    "class weights": lambda rng, k: losses.class_weighted(_weights(rng, k)),
    "logit adjustment": lambda rng, k: losses.logit_adjusted(rng.uniform(-2, 2)),
    "class averaging": lambda rng, k: losses.class_averaged(),
    "decoupled": lambda rng, k: losses.decoupled(),
    "class temperatures": lambda rng, k: losses.class_temperatures(_taus(rng, k)),
    "margins": lambda rng, k: losses.log_sum_exp(margins=_margins(rng, k)),
    "extreme margins": lambda rng, k: losses.log_sum_exp(margins=np.clip(_margins(rng, k, 60.0), -100, 100)),
    "weights and averaging": lambda rng, k: losses.log_sum_exp(weights=_weights(rng, k), averaged=True),
    "all at once": lambda rng, k: losses.log_sum_exp(
        _weights(rng, k), _margins(rng, k), _taus(rng, k), strength=1.0, averaged=True, positives_in_denominator=False
    ),
    "sigmoid": lambda rng, k: losses.sigmoid(rng.uniform(0.5, 3.0), 10 * rng.standard_normal()),
    "supcon-in": lambda rng, k: losses.supcon_in(),
}
