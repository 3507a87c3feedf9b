"""Former public names: they still work, with one warning each that names the present one."""

import importlib
import sys

import jax.numpy as jnp
import pytest

import networks
import solvers
import ufm
from figures import style
from solvers import Accelerated
from ufm import activations, losses
from ufm.deprecated import FORMER_MODULES

LOSS = losses.logit_adjusted(1.0)
SAMPLES = networks.synthetic([4, 4]).train
PROBLEM = ufm.Problem.from_class_sizes([2, 2], d=2, tau=0.5)


def anchor_loss(G, samples, same, tau):
    return jnp.sum(samples * jnp.where(same, 1 - G, G) ** 2) / tau


FORMER = {
    "Problem.coldest": (lambda: PROBLEM.coldest, lambda: PROBLEM.smallest_temperature),
    "Problem.is_crowded": (lambda: PROBLEM.is_crowded, lambda: PROBLEM.fewer_dimensions_than_classes),
    "Problem.rows": (lambda: PROBLEM.rows.members.shape, lambda: PROBLEM.all_batches.members.shape),
    "Loss.is_own": (lambda: LOSS.is_own, lambda: LOSS.is_custom),
    "Loss.glues_alone": (lambda: LOSS.glues_alone, lambda: LOSS.merges_alone),
    "Loss.described": (lambda: LOSS.described(), lambda: LOSS.to_dict()),
    "Activation.floor": (
        lambda: activations.activation("gelu").floor(normalised=False),
        lambda: activations.activation("gelu").entry_bound(normalised=False),
    ),
    "Activated.floor": (lambda: solvers.Activated().floor, lambda: solvers.Activated().entry_bound),
    "Accelerated(settled=...)": (
        lambda: solvers.Accelerated(settled=1e-5),
        lambda: solvers.Accelerated(early_exit=1e-5),
    ),
    "Accelerated(floor=...)": (lambda: Accelerated(floor=-0.5), lambda: Accelerated(entry_bound=-0.5)),
    "QuasiNewton(settled=...)": (
        lambda: solvers.QuasiNewton(settled=1e-5),
        lambda: solvers.QuasiNewton(early_exit=1e-5),
    ),
    "mislabelled(share=...)": (
        lambda: networks.mislabelled(SAMPLES, share=0.5, seed=0)[1].tolist(),
        lambda: networks.mislabelled(SAMPLES, fraction=0.5, seed=0)[1].tolist(),
    ),
    "ufm.losses.own": (
        lambda: losses.own(anchor_loss, name="squares"),
        lambda: losses.custom(anchor_loss, name="squares"),
    ),
}


@pytest.mark.parametrize("name", FORMER)
def test_a_former_name_works_and_warns_once(name):
    former, present = FORMER[name]
    with pytest.warns(DeprecationWarning, match="is now") as warned:
        value = former()
    assert value == present()
    assert [str(one.message).split(" is now ")[0] for one in warned] == [name]


def test_the_former_style_and_status():
    with pytest.warns(DeprecationWarning, match=r"figures\.style\.custom"), style.own(width=3.0):
        pass
    assert solvers.Status("in conflict") is solvers.Status.SPURIOUS


@pytest.mark.parametrize("former", sorted(FORMER_MODULES))
def test_a_former_module_is_the_present_one(former, monkeypatch):
    monkeypatch.delitem(sys.modules, former, raising=False)
    present = importlib.import_module(FORMER_MODULES[former])
    specification = present.__spec__
    with pytest.warns(DeprecationWarning, match="is now"):
        assert importlib.import_module(former) is present
    assert present.__spec__ is specification
    assert importlib.util.find_spec("ufm.no_such_module") is None
