"""The rows and the Gram matrix of a point in a file (theory, 6.2)."""

from typing import Any

from flint import arb

from ufm_check.fields import doubles, items, need
from ufm_check.reading import MOST_PRODUCTS, Statement, fits

SparseRow = dict[int, arb]


class Point:
    """The rows h_a, stored by their nonzero entries. A call with two orbits gives their entry of the Gram matrix."""

    def __init__(self, rows: list[SparseRow], norms: list[arb]) -> None:
        self.rows, self.norms, self.known = rows, norms, dict[tuple[int, int], arb]()

    def __call__(self, a: int, b: int) -> arb:
        """G_ab."""
        if (a, b) not in self.known:
            products = (x * self.rows[b][j] for j, x in self.rows[a].items() if j in self.rows[b])
            self.known[a, b] = self.norms[a] ** 2 if a == b else sum(products, arb(0))
        return self.known[a, b]


def read_point(problem: Statement, rows: Any, norms: Any) -> Point:
    """The point over orbits: rows scaled to the stated norms. A norm above 0 needs a nonzero row."""
    m, low = len(problem.sizes), 0.0 if problem.nonneg else -1e100
    entries = (doubles(row, "rows", problem.d, low, 1e100) for row in items(rows, "rows", m))
    sparse = [{j: x for j, x in enumerate(row) if not x.is_zero()} for row in entries]
    radii = doubles(norms, "norms", m, 0.0, 1.0)
    need(all(row or r.is_zero() for row, r in zip(sparse, radii, strict=True)), "a norm above 0 with a row of zeros")
    met = sum(len(batch) * sum(len(sparse[a]) for a in batch) for batch, _ in problem.batches)
    fits(min(met, m * sum(map(len, sparse))), problem.limit_factor * MOST_PRODUCTS, "entries")
    square = [sum((x * x for x in row.values()), arb(0)) for row in sparse]
    scale = [r if s.is_zero() else r / s.sqrt() for s, r in zip(square, radii, strict=True)]
    return Point([{j: x * t for j, x in row.items()} for row, t in zip(sparse, scale, strict=True)], radii)
