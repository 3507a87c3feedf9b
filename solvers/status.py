"""How a start ended, in words a user can act on. A status is what the solver says of itself, never a proof."""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """What stopped a start. `solvers.verify` and `solvers.certify` judge the point it left."""

    CONVERGED = "converged"
    CONFLICTED = "in conflict"
    OUT_OF_STEPS = "out of steps"
    NOT_FINITE = "not finite"

    @property
    def sentence(self) -> str:
        """The status in a sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.CONVERGED: "The projected gradient vanishes.",
    Status.CONFLICTED: "The projected gradient vanishes where classes still push each other, and no lift freed them.",
    Status.OUT_OF_STEPS: "The step limit came before the projected gradient vanished; allow more steps.",
    Status.NOT_FINITE: "A step overflowed; this is the last finite point. Take shorter steps.",
}
