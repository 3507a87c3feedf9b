"""Inputs that would be taken for something else: refused in one line, or taken for what they are."""

import jax
import numpy as np
import pytest

import networks
import solvers
import ufm
from experiments import sweep_imbalance
from experiments.harness import command_line
from experiments.harness.loss_names import loss_of
from ufm import activations, losses, samplers

pytestmark = pytest.mark.usefixtures("untyped")

LABELS = np.array([0, 0, 1])
PROBLEM = ufm.Problem(LABELS, 3)


def masked(values, at=0):
    return np.ma.masked_array(values, mask=np.arange(np.size(values)).reshape(np.shape(values)) == at)


TAKEN = {
    "labels": (LABELS, lambda x: ufm.Problem(x, 3)),
    "labels, with k": (LABELS, lambda x: ufm.Problem(x, 3, k=2)),
    "multiplicity": ([1, 2, 3], lambda x: ufm.Problem(LABELS, 3, multiplicity=x)),
    "batches": ([[0, 1, 2]], lambda x: ufm.Problem(LABELS, 3, batches=x)),
    "a batch": ([0, 1, 2], lambda x: ufm.Problem(LABELS, 3, batches=[x])),
    "sizes": ([3, 2], lambda x: ufm.Problem.from_class_sizes(x, 3)),
    "sizes, expected": ([3, 2], lambda x: ufm.Problem.expected(x, samplers.uniform(2), 3)),
    "sizes of images": ([3, 2], lambda x: networks.imbalanced(networks.synthetic((6, 4)).train, x, 0)),
    "labels of a sampler": (LABELS, lambda x: samplers.uniform(2).draw(x, 0, 1)),
    "population": (LABELS, samplers.Population),
    "stratified": (LABELS, lambda x: ufm.batching.stratified_partition(x, 2, 0)),
    "rows": (np.eye(3), lambda x: ufm.scl_loss(x, PROBLEM)),
    "rows of an excess": (np.eye(3), lambda x: ufm.excess(x, PROBLEM)),
    "rows of metrics": (np.eye(3), lambda x: ufm.geometry_metrics(x, LABELS)),
    "labels of metrics": (LABELS, lambda x: ufm.geometry_metrics(np.eye(3), x)),
    "multiplicity of metrics": ([1, 2, 3], lambda x: ufm.geometry_metrics(np.eye(3), LABELS, multiplicity=x)),
    "projected": (np.eye(3), lambda x: ufm.project(x, True)),
    "verified": (np.eye(3)[LABELS], lambda x: solvers.verify(x, PROBLEM)),
    "certified": (np.eye(3)[LABELS], lambda x: solvers.certify(x, PROBLEM)),
    "suboptimal": (np.eye(3)[LABELS], lambda x: solvers.suboptimality(x, PROBLEM)),
    "class weights": ([1.0, 2.0], losses.class_weighted),
    "margins": (np.eye(2), lambda x: losses.log_sum_exp(margins=x)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_masked_entries_are_refused(name):
    values, call = TAKEN[name]
    with pytest.raises(ufm.InvalidInput, match="masked") as refusal:
        call(masked(values))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["labels", "batches", "sizes", "rows", "labels of metrics", "margins"])
def test_a_masked_array_without_masked_entries_is_an_array(name):
    values, call = TAKEN[name]
    call(np.ma.masked_array(values, mask=False))


@pytest.mark.parametrize("kind", ["i1", "u1", "<i2", ">i2", ">i4", ">u4", "<i8", ">i8", "<u8", ">u8"])
def test_whole_numbers_of_every_kind_are_the_same_problem(kind):
    def whole(values):
        return np.array(values, kind)

    problem = ufm.Problem(whole(LABELS), 3, batches=whole([[0, 1, 2]]), multiplicity=whole([1, 2, 3]))
    expected = ufm.Problem(LABELS, 3, batches=[[0, 1, 2]], multiplicity=[1, 2, 3])
    assert all(map(np.array_equal, jax.tree.leaves(problem), jax.tree.leaves(expected)))
    sized = ufm.Problem.from_class_sizes(whole([2, 1]), 3)
    np.testing.assert_array_equal(sized.labels, LABELS)
    metrics = [ufm.geometry_metrics(np.eye(3), labels) for labels in (whole(LABELS), LABELS)]
    assert all(map(np.array_equal, *metrics))


@pytest.mark.parametrize("bad", [[1, 1, -1], [1, np.nan, 1], [np.inf, 1, 1], [0, 0, 0], [1, 1], ["a", "b", "c"]])
def test_metrics_refuse_multiplicities_that_count_nothing(bad):
    with pytest.raises(ufm.InvalidInput, match="multiplicity"):
        ufm.geometry_metrics(np.eye(3), [0, 1, 1], multiplicity=bad)


@pytest.mark.parametrize("text", ["sigmoid:1_0,0", "class-weights:1_0", "logit-adjustment:\u0661"])
def test_numbers_of_losses_are_written_plainly(text):
    with pytest.raises(ufm.InvalidInput, match="loss"):
        loss_of(text, np.array([3, 2]))


@pytest.mark.parametrize("text", ["leaky-relu:0_1", "leaky-relu:0.1_0", "leaky-relu:\u0661"])
def test_slopes_are_written_plainly(text):
    with pytest.raises(ufm.InvalidInput, match="activation"):
        activations.activation(text)


@pytest.mark.parametrize("quantity", [ufm.scl_loss, ufm.excess])
def test_no_derivative_in_the_temperature(quantity):
    with pytest.raises(ufm.InvalidInput, match="not in tau"):
        jax.grad(lambda tau: quantity(np.eye(3), ufm.Problem(LABELS, 3, tau, k=2)))(0.3)


@pytest.mark.parametrize(
    "words", [["--tau", "1_0"], ["--tau", "1", "1_0"], ["--R=1_0"], ["--k", "1_0"], ["--k", "\u0663"]]
)
def test_numbers_of_commands_are_written_plainly(words, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.parse(sweep_imbalance.Config, words)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(error.splitlines()) == 1
    assert words[0].partition("=")[0] in error
    assert "write a number in digits" in error


def test_folders_of_commands_may_look_like_numbers():
    assert str(command_line.parse(sweep_imbalance.Config, ["--out", "2024_01"]).out) == "2024_01"
