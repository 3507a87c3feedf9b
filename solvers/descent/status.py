"""How a start ended, in words a user can act on. A status is what the solver says of itself, never a proof."""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """What stopped a start. `solvers.verify` and `solvers.certify` judge the point it left."""

    CONVERGED = "converged"
    CONFLICTED = "in conflict"
    STALLED = "stalled"
    OUT_OF_STEPS = "out of steps"
    OUT_OF_TIME = "out of time"
    NOT_FINITE = "not finite"

    @property
    def sentence(self) -> str:
        """The status in a sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.CONVERGED: "The projected gradient is as small as the method asks (its tolerance).",
    Status.CONFLICTED: "The projected gradient vanishes where classes still push each other, and no lift freed them.",
    Status.STALLED: "No step lowers the loss as far as rounding lets it be seen, and the projected gradient is not 0.",
    Status.OUT_OF_TIME: "The time limit came before the projected gradient vanished; allow more seconds.",
    Status.OUT_OF_STEPS: "The step limit came before the projected gradient vanished; allow more steps.",
    Status.NOT_FINITE: "A step overflowed; this is the last finite point. Take shorter steps.",
}
