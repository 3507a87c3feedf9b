r"""The family of losses, for the argument `loss` of `ufm.Problem` (theory, 1.5).

For an active anchor i of class c in batch B, with p positives, weight omega_c > 0, inverse temperature s_c, margins
a(c, e) and alpha in {0, 1},

    log-sum-exp   f = omega_c { log[ alpha sum_pos e^{a(c,c) + s_c G_ij} + sum_neg e^{a(c,y_l) + s_c G_il} ]
                                - s_c mean_pos G_ij }
    sigmoid       f = sum_pos log(1 + e^{-t G_ij - b}) + sum_neg log(1 + e^{t G_il + b})
    SupCon-in     f = -log( mean_pos e^{s G_ij} / sum_{l != i} e^{s G_il} )

On UFM+ with d >= k the orthogonal frames minimise all of them (theory, 2.14). To add a loss, pass the function of one
anchor (`AnchorLoss`) to `custom`. `ufm.scl_loss`, `solvers.solve` and `solvers.verify` accept it like the others.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from ufm.deprecated import former_method, former_property, warn
from ufm.display import Readable, Summary, between
from ufm.errors import InvalidInput, real_array
from ufm.settings import in_fixed_settings

Kind = Literal["log-sum-exp", "sigmoid", "supcon-in", "own"]
# With larger numbers the exponentials of margins and cosines together would overflow.
LARGEST_MARGIN = 100.0
LARGEST_STRENGTH = 4.0
LARGEST_WEIGHT = 1e9
# The numbers of a loss: name, and how many axes over classes each has.
SHAPES = {"weights": 1, "taus": 1, "margins": 2, "strength": 0, "scale": 0, "bias": 0}


@runtime_checkable
class AnchorLoss(Protocol):
    """A custom loss: the loss term of one active anchor, in jax.numpy, differentiable in the cosines.

    - cosines: (s,) G_il with every point of its batch. samples: (s,) the number of samples that each point stands for.
      positive: (s,) whether the point is in the anchor's class. tau: the problem's temperature.

    A point of m samples must count like m points of one sample. A point of 0 samples (the anchor itself, padding) must
    not count, and its cosine is 0. The solver's lifts assume that positives attract and negatives repel.
    """

    def __call__(
        self,
        cosines: Float[Array, " s"],
        samples: Float[Array, " s"],
        positive: Bool[Array, " s"],
        tau: Float[Array, ""],
        /,
    ) -> Float[Array, ""]:
        """f."""
        ...


class Loss(Readable, eqx.Module):
    """A loss of the family. Frozen, hashable and compared by content; the functions of this module make it.

    A number that is None is not used. Plain SCL uses no number, so the family does not slow it down.

    - kind: which of the three forms. positives_in_denominator: alpha. averaged: the margins -log n_{B,e}, and
      -log(n_{B,c} - 1) for the anchor's class, are added, so that every class of a batch counts by its mean.
    - weights: (k,) omega. taus: (k,) temperatures of anchors as multiples of the problem's, s_c = 1 / (tau taus_c).
    - margins: (k, k) a(c, e), anchor's class first. strength: of the margins strength log n_e that are added, n_e the
      samples of class e in the problem.
    - scale, bias: of the sigmoid, t = scale / tau and b = bias.
    - row, label, minimal_at_frames: of a custom loss, see `custom`.
    """

    kind: Kind = eqx.field(static=True, default="log-sum-exp")
    positives_in_denominator: bool = eqx.field(static=True, default=True)
    averaged: bool = eqx.field(static=True, default=False)
    weights: Float[Array, " k"] | None = None
    taus: Float[Array, " k"] | None = None
    margins: Float[Array, "k k"] | None = None
    strength: Float[Array, ""] | None = None
    scale: Float[Array, ""] | None = None
    bias: Float[Array, ""] | None = None
    row: AnchorLoss | None = eqx.field(static=True, default=None)
    label: str = eqx.field(static=True, default="")
    minimal_at_frames: bool = eqx.field(static=True, default=True)

    @property
    def is_plain(self) -> bool:
        """Whether it is SCL itself."""
        return self.structure == ("log-sum-exp", True, False)

    @property
    def structure(self) -> tuple[Any, ...]:
        """Everything but the values of numbers: kind, alpha, averaging, and which numbers are used."""
        used = (name for name in SHAPES if getattr(self, name) is not None)
        custom_parts = () if self.row is None else (self.label, hash(self.row))
        return self.kind, self.positives_in_denominator, self.averaged, *used, *custom_parts

    @property
    def has_margins(self) -> bool:
        """Whether any margin may differ from 0."""
        return self.averaged or self.margins is not None or self.strength is not None

    @property
    def is_convex(self) -> bool:
        """Whether it is known to be convex in the Gram matrix, so that duals bound it from below (theory, 4.1)."""
        return self.kind in ("log-sum-exp", "sigmoid")

    @property
    def is_custom(self) -> bool:
        """Whether it is a function of the user's, about which nothing is known but the values it returns."""
        return self.kind == "own"

    is_own = former_property("is_own", "is_custom")
    glues_alone = former_property("glues_alone", "merges_alone")
    described = former_method("described", "to_dict")

    @property
    def ties_alone(self) -> bool:
        """Whether a batch of one class has zero excess only if the cosines of each anchor are equal (theory, 2.14)."""
        return self.kind == "log-sum-exp" and self.positives_in_denominator

    @property
    def merges_alone(self) -> bool:
        """Whether batches of one class merge their samples, as mixed batches do (theory, 2.14)."""
        return self.kind == "sigmoid"

    @property
    def temperatures(self) -> list[float]:
        """All temperatures of anchors, as multiples of the problem's."""
        if self.scale is not None:
            return [1 / float(self.scale)]
        return [1.0] if self.taus is None else np.asarray(self.taus).tolist()

    @property
    def name(self) -> str:
        """The loss in words."""
        if self.is_custom:
            return self.label
        if self.kind != "log-sum-exp":
            return {"sigmoid": "sigmoid", "supcon-in": "SupCon-in"}[self.kind]
        parts = {
            "class weights": self.weights is not None,
            "class temperatures": self.taus is not None,
            "margins": self.margins is not None,
            "logit adjustment": self.strength is not None,
            "class averaging": self.averaged,
            "decoupled": not self.positives_in_denominator,
        }
        return ", ".join(part for part, used in parts.items() if used) or "SCL"

    def to_dict(self) -> dict[str, Any]:
        """Its content in plain Python: kind, flags, and the numbers in use as exact hexadecimal doubles."""
        numbers = {name: getattr(self, name) for name in SHAPES}
        flags = {"kind": self.kind, "positives_in_denominator": self.positives_in_denominator}
        flags |= {"name": self.label, "minimal_at_frames": self.minimal_at_frames} if self.is_custom else {}
        return {**flags, "averaged": self.averaged} | {
            name: _hexed(np.asarray(value).tolist()) for name, value in numbers.items() if value is not None
        }

    @classmethod
    def of_description(cls, fields: dict[str, Any]) -> Loss:
        """The loss with this content (`to_dict`). Raises InvalidInput, or ValueError for a malformed dictionary."""
        if fields.get("kind") == "own":
            raise InvalidInput("loss", fields.get("name"), "a custom loss is code, which a file cannot hold")
        numbers = {name: _read(fields[name]) for name in SHAPES if name in fields}
        flags = {name: fields[name] for name in ("positives_in_denominator", "averaged")}
        if set(fields) != {"kind", *flags, *numbers} or not all(type(flag) is bool for flag in flags.values()):
            raise ValueError("not the description of a loss")
        if fields["kind"] == "log-sum-exp":
            return log_sum_exp(**numbers, **flags)
        needed = {"sigmoid": {"scale", "bias"}, "supcon-in": set()}[fields["kind"]]
        if set(numbers) != needed or flags != {"positives_in_denominator": True, "averaged": False}:
            raise ValueError("not the description of a loss")
        return {"sigmoid": sigmoid, "supcon-in": supcon_in}[fields["kind"]](**numbers)

    def summary(self) -> Summary:
        """Its name, and the ranges of its numbers."""
        numbers = {name: getattr(self, name) for name in SHAPES if getattr(self, name) is not None}
        if any(isinstance(value, Tracer) or not eqx.is_array(value) for value in numbers.values()):
            return Summary(f"Loss: {self.name}, without values", {})
        return Summary(
            f"Loss: {self.name}", {name: between(np.asarray(value).ravel()) for name, value in numbers.items()}
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and self.row is other.row and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(str(self.to_dict()))


def scl() -> Loss:
    """The supervised contrastive loss, the default."""
    return Loss()


def log_sum_exp(
    weights: Any = None,
    margins: Any = None,
    taus: Any = None,
    *,
    strength: Any = None,
    averaged: bool = False,
    positives_in_denominator: bool = True,
) -> Loss:
    """The general form of the log-sum-exp losses; omitted arguments are those of SCL. See `Loss`.

    weights, taus: (k,), above 0. margins: (k, k), at most 100 in size. strength: of the logit adjustment, at most 4
    in size. Raises InvalidInput.
    """
    for name, flag in (("averaged", averaged), ("positives_in_denominator", positives_in_denominator)):
        if not isinstance(flag, (bool, np.bool_)):
            raise InvalidInput(name, flag, "give True or False")
    return Loss(
        positives_in_denominator=bool(positives_in_denominator),
        averaged=bool(averaged),
        weights=_numbers("weights", weights, 1 / LARGEST_WEIGHT, LARGEST_WEIGHT),
        taus=_numbers("taus", taus, 1e-6, 1e6),
        margins=_numbers("margins", margins, -LARGEST_MARGIN, LARGEST_MARGIN),
        strength=_numbers("strength", strength, -LARGEST_STRENGTH, LARGEST_STRENGTH),
    )


def class_weighted(weights: Any) -> Loss:
    """SCL with a weight (k,) of the anchors of each class. Raises InvalidInput."""
    return log_sum_exp(weights=_required("weights", weights))


def logit_adjusted(strength: float = 1.0) -> Loss:
    """SCL with margins strength log n_e (Menon et al. 2021). Raises InvalidInput."""
    return log_sum_exp(strength=_required("strength", strength))


def class_averaged() -> Loss:
    """Balanced contrastive learning (Zhu et al. 2022): every class counts by its mean in the denominator."""
    return log_sum_exp(averaged=True)


def decoupled() -> Loss:
    """Decoupled contrastive learning (Yeh et al. 2022): positives are not in the denominator."""
    return log_sum_exp(positives_in_denominator=False)


def class_temperatures(taus: Any) -> Loss:
    """SCL with temperatures (k,) of the anchors of each class, as multiples of the problem's. Raises InvalidInput."""
    return log_sum_exp(taus=_required("taus", taus))


def sigmoid(scale: float = 1.0, bias: float = 0.0) -> Loss:
    """The pairwise sigmoid loss (Zhai et al. 2023), of slope scale / tau. Raises InvalidInput."""
    return Loss(
        kind="sigmoid",
        scale=_numbers("scale", _required("scale", scale), 1e-6, 1e6),
        bias=_numbers("bias", _required("bias", bias), -LARGEST_MARGIN, LARGEST_MARGIN),
    )


def supcon_in() -> Loss:
    """SupCon-in (Khosla et al. 2020): the mean over positives inside the logarithm. Not convex in the Gram matrix."""
    return Loss(kind="supcon-in")


def custom(row: AnchorLoss, *, name: str, minimal_at_frames: bool = False) -> Loss:
    """A custom loss, defined by the loss term of one anchor. Raises InvalidInput if `row` is not a function.

    row: see `AnchorLoss`. It must be hashable, and importable from a module if problems are sent to other processes.
    name: used in summaries. minimal_at_frames: True states that no anchor of UFM+ has a smaller loss than at an
    orthogonal frame, so that the loss of a frame is a lower bound. This is trusted and not proved, and nothing is
    certified. Otherwise the excess over the loss of a frame may be negative. The excess is the rounded difference of
    both.
    """
    if not callable(row):
        raise InvalidInput("row", row, "give a function of cosines, samples, positive and tau")
    if not isinstance(name, str) or not name:
        raise InvalidInput("name", name, "give the loss a name, a non-empty text")
    if not isinstance(minimal_at_frames, bool):
        raise InvalidInput("minimal_at_frames", minimal_at_frames, "give True or False")
    return Loss(kind="own", row=row, label=name, minimal_at_frames=minimal_at_frames)


def _required(name: str, value: Any) -> Any:
    if value is None:
        raise InvalidInput(name, None, "give numbers")
    return value


@in_fixed_settings
def _numbers(name: str, value: Any, low: float, high: float) -> Float[Array, ...] | None:
    """The value as an array of doubles in [low, high] with the axes that it should have, or InvalidInput."""
    if value is None:
        return None
    axes = SHAPES[name]
    form = ("a number", "one number for each class", "a square matrix, a number for each pair of classes")[axes]
    fix = f"give {form}, from {low:g} to {high:g}"
    array = real_array(name, value, fix)
    if isinstance(value, (bool, str)) or array.ndim != axes or (axes == 2 and len(set(array.shape)) > 1):
        raise InvalidInput(name, value, fix)
    if not ((array >= low) & (array <= high)).all():  # a NaN is in no interval
        raise InvalidInput(name, array.tolist(), fix)
    return jnp.asarray(array)


def _hexed(value: Any) -> Any:
    return [_hexed(entry) for entry in value] if isinstance(value, list) else float(value).hex()


def _read(value: Any) -> Any:
    return [_read(entry) for entry in value] if isinstance(value, list) else float.fromhex(value)


def own(row: AnchorLoss, *, name: str, minimal_at_frames: bool = False) -> Loss:
    """The former name of `custom`. Raises InvalidInput as that does."""
    warn("ufm.losses.own", "ufm.losses.custom")
    return custom(row, name=name, minimal_at_frames=minimal_at_frames)
