"""Every bad input is one line that names the argument; a command line exits 2 and writes nothing."""

import subprocess
import sys
from functools import partial

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import solvers
import ufm
from experiments import sweep_batching, sweep_imbalance
from experiments.harness import command_line
from solvers.methods.accelerated import Accelerated
from solvers.methods.projected_gradient import ProjectedGradient
from solvers.multistart import solve_each

NAN = float("nan")
PROBLEM = ufm.Problem([0, 0, 1, 1], 3, 1.0)
H = np.eye(3)[[0, 0, 1, 1]]
ANCHOR_LOSSES = [
    H[:2],
    H[0],
    H[:, :2],
    np.zeros((4, 4)),
    np.zeros((0, 3)),
    H[None],
    1j * H,
    "H",
    None,
    [[1, 2], [3]],
    [["a"] * 3] * 4,
]

BAD = [
    *[("H", partial(function, bad, PROBLEM)) for function in (ufm.excess, ufm.scl_loss) for bad in ANCHOR_LOSSES],
    *[
        ("H", partial(function, bad, PROBLEM))
        for function in (solvers.verify, solvers.certify)
        for bad in ANCHOR_LOSSES
    ],
    ("H", partial(solvers.certify, H * NAN, PROBLEM)),
    *[("problem", partial(function, H, [0, 0, 1, 1])) for function in (ufm.excess, ufm.scl_loss)],
    *[("problem", partial(function, H, None)) for function in (solvers.verify, solvers.certify)],
    *[("problem", partial(solvers.solve, bad)) for bad in (None, [0, 0, 1, 1])],
    *[
        ("seed", partial(solvers.solve, PROBLEM, seed=bad))
        for bad in (-1, "a", 1.5, 2**63, 2**70, None, True, [0], NAN)
    ],
    *[("inits", partial(solvers.solve, PROBLEM, inits=bad)) for bad in (0, -1, 1.0, "2", True, 2**31)],
    *[("max_steps", partial(solvers.solve, PROBLEM, max_steps=bad)) for bad in (0, -1, 1e3, "5", True, 2**40)],
    *[("max_lifts", partial(solvers.Staircase, max_lifts=bad)) for bad in (-1, 0.5, "1", None, 2**40)],
    *[
        ("method", partial(solvers.solve, PROBLEM, method=bad))
        for bad in ("sgd", "", 5, None, Accelerated, optax.sgd(0.1))
    ],
    *[("problems", partial(solve_each, bad)) for bad in ([], [None], [PROBLEM, 3])],
    ("problems", partial(solve_each, [PROBLEM, ufm.Problem([0, 1], 2)])),
    *[("seed", partial(solve_each, [PROBLEM], seeds=[bad])) for bad in (-1, "a", 2**70)],
    ("seeds", partial(solve_each, [PROBLEM], seeds=[1, 2])),
    ("inits", partial(solve_each, [PROBLEM], inits=0)),
    ("max_steps", partial(solve_each, [PROBLEM], max_steps=0)),
    *[
        ("transformation", partial(ProjectedGradient, bad))
        for bad in (optax.sgd, 0.1, "sgd", None, lambda: 3, lambda x: x)
    ],
    *[
        ("tolerance", partial(method, tolerance=bad))
        for method in (ProjectedGradient, solvers.QuasiNewton, solvers.Accelerated)
        for bad in (-1.0, NAN, "1e-9", None, True, 1.0, float("inf"))
    ],
    *[("memory", partial(solvers.QuasiNewton, memory=bad)) for bad in (0, -3, 1.5, True, 10**9, None)],
    *[("early_exit", partial(solvers.Accelerated, early_exit=bad)) for bad in (-1.0, NAN, "x", None)],
    *[("longest", partial(solvers.Accelerated, longest=bad)) for bad in (-1.0, 0, NAN, float("inf"), "4")],
    ("transformation", partial(ProjectedGradient, lambda: 1 / 0)),
    ("progress", partial(solvers.solve, PROBLEM, progress=5)),
    ("record_H", partial(solvers.solve, PROBLEM, record_H="no", method="accelerated")),
    *[("max_seconds", partial(solvers.solve, PROBLEM, max_seconds=bad)) for bad in (10**400, NAN, np.float32(-1))],
    *[("H", partial(function, H * 1e300, PROBLEM)) for function in (ufm.excess, ufm.scl_loss)],
    *[("nonneg", partial(ufm.Problem, [0, 1], 2, nonneg=bad)) for bad in ("no", "yes", 0, 1, None, [], 0.0)],
    *[("nonneg", partial(ufm.Problem.from_class_sizes, [2, 2], 2, nonneg=bad)) for bad in ("no", 1)],
    *[
        ("multiplicity", partial(ufm.Problem, [0, 1], 2, multiplicity=bad))
        for bad in ([2**53, 1], [1e18, 1], [1e300, 1])
    ],
    ("tolerance", partial(solvers.certify, H, PROBLEM, tolerance=NAN)),
    *[("labels", partial(ufm.geometry_metrics, H, bad)) for bad in ([0, 1], [0, 0, 1, -1], [0.0, 0, 1, 1], [], "0011")],
    ("labels", partial(ufm.geometry_metrics, H, [0, 0, 1, 5], k=2)),
    *[("H", partial(ufm.geometry_metrics, bad, [0, 0, 1, 1])) for bad in (H[0], None, "H", [[1], [1, 2]])],
    *[("k", partial(ufm.geometry_metrics, H, [0, 0, 0, 0], k=bad)) for bad in (1, 1.5, "2")],
    ("multiplicity", partial(ufm.geometry_metrics, H, [0, 0, 1, 1], multiplicity=[1.0, 2.0])),
    *[("n_min", partial(ufm.step_imbalance, 4, bad, 10.0)) for bad in (99999999999, 0, 2.5, "5")],
]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(("argument", "call"), BAD, ids=[f"{i}-{name}" for i, (name, _) in enumerate(BAD)])
def test_a_bad_argument_is_named_in_one_line(argument, call):
    with pytest.raises(ufm.InvalidInput, match=rf"^{argument} = ") as caught:
        call()
    assert "\n" not in str(caught.value)


GOOD = [np.float32, np.float16, np.int64, bool]


@pytest.mark.parametrize("kind", [*GOOD, "list", "jax", "jax32"])
def test_embeddings_in_other_numbers_are_taken_in_doubles(kind):
    inputs = {"list": H.tolist(), "jax": jnp.asarray(H), "jax32": jnp.asarray(H, dtype=jnp.float32)}.get(
        kind, None if isinstance(kind, str) else H.astype(kind)
    )
    inputs = H.astype(int).tolist() if kind is bool else inputs
    assert float(ufm.excess(inputs, PROBLEM)) == float(ufm.excess(H, PROBLEM)) == 0.0
    assert float(ufm.scl_loss(inputs, PROBLEM)) == float(ufm.scl_loss(H, PROBLEM))
    assert float(ufm.geometry_metrics(inputs, [0, 0, 1, 1]).max_cosine) == 0.0
    assert solvers.verify(inputs, PROBLEM).verdict is solvers.Verdict.GLOBAL_MINIMISER
    assert solvers.certify(inputs, PROBLEM, conic=False).status == "certified"


IMBALANCE = [
    *[("tau", ["--tau", bad]) for bad in ("0", "-1", "nan", "inf", "1e5", "0.001")],
    ("tau", ["--tau", "0.5", "0"]),
    ("tau", ["--tau"]),
    ("--tau", ["--tau", "warm"]),
    *[("seed", ["--seed", bad]) for bad in ("-1", str(2**63), str(2**70))],
    *[("--seed", ["--seed", bad]) for bad in ("a", "1.5", "2**70")],
    *[("inits", ["--inits", bad]) for bad in ("0", "-3", "1000000000000")],
    *[("k", ["--k", bad]) for bad in ("0", "1", "-5", "99999999999")],
    *[("d", ["--d", bad]) for bad in ("0", "-1", "99999999999")],
    *[("n_min", ["--n-min", bad]) for bad in ("0", "-1", "99999999999", "40000000")],
    *[("R", ["--R", bad]) for bad in ("0.5", "inf", "1e8", "-1")],
    ("imbalance", ["--imbalance", "given"]),
    *[("problem", ["--problem", bad]) for bad in ("nowhere.json", "nowhere.txt", ".")],
    ("method", ["--method", ""]),
    ("dask", ["--dask", "local:0"]),
    ("--inits", ["--inits", "1e3"]),
]
BATCHING = [
    *[("n", ["--n", bad]) for bad in ("99999999999", "1", "0", "-7", "12")],
    ("n", ["--n", "100", "--n-min", "5"]),
    *[("n_min", ["--n-min", bad]) for bad in ("99999999999", "0")],
    *[("seed", ["--seed", bad]) for bad in ("-1", str(2**70))],
    *[("batch_size", ["--batch-size", bad]) for bad in ("0", "-1")],
    *[("partitions", ["--partitions", bad]) for bad in ("0", "1000000000000")],
    *[("epochs", ["--family", "reshuffled", "--epochs", bad]) for bad in ("0", "1000000")],
    *[("tau", ["--tau", bad, "--n", "60", "--partitions", "1"]) for bad in ("0", "nan")],
    ("tau", ["--tau", "0.5", "0", "--n", "60", "--partitions", "1"]),
    ("tau", ["--tau"]),
    *[("family", ["--family", bad]) for bad in ("given", "shuffled", "")],
    ("imbalance", ["--imbalance", "given"]),
    ("imbalance", ["--imbalance", "given", "--n-min", "5"]),
    *[("problem", ["--problem", bad]) for bad in ("nowhere.json", "nowhere.txt", ".")],
    ("d", ["--d", "5"]),
    ("k", ["--k", "1"]),
    ("inits", ["--inits", "0"]),
    ("R", ["--R", "nan"]),
    ("batch_size", ["--batch-size"]),
]
COMMANDS = [*((sweep_imbalance, *case) for case in IMBALANCE), *((sweep_batching, *case) for case in BATCHING)]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("sweep", "argument", "words"), COMMANDS, ids=[f"{s.__name__}-{'_'.join(w)}" for s, _, w in COMMANDS]
)
def test_a_bad_command_line_is_one_line_and_status_2_and_writes_nothing(sweep, argument, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.run(lambda: sweep.main([*words, "--out", str(tmp_path / "runs")]))
    said = capsys.readouterr()
    assert stopped.value.code == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert (argument if argument.startswith("--") else f"{argument} = ") in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_bad_command_line_in_a_process_of_its_own(tmp_path):
    words = ["--seed", str(2**70), "--out", str(tmp_path / "runs")]
    command = [sys.executable, "-m", "experiments.sweep_batching", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert len(run.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_optax_transformation_alone_is_told_what_wraps_it(untyped):
    with pytest.raises(ufm.InvalidInput, match=r"wrap it: solvers\.ProjectedGradient"):
        solvers.solve(PROBLEM, method=optax.adam(0.01))


@pytest.mark.few(1)
@pytest.mark.parametrize("method", [ProjectedGradient(optax.sgd(0.1)), ProjectedGradient(lambda: optax.sgd(0.1))])
def test_an_optax_transformation_or_a_maker_of_one(method):
    solution = solvers.solve(PROBLEM, inits=1, method=method, max_steps=5)
    assert solution.excess[0] < float(ufm.excess(np.eye(3)[[0, 0, 0, 0]], PROBLEM))
