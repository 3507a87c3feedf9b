"""Sweeps whose cells take milliseconds, each in a process of its own that a test may kill.

Run as a program: reads one JSON request a line, forks a process for it from this one, which has imported
everything and computed nothing, answers with its id, and at the next line with its exit status once it has ended.
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import xarray as xr

from experiments.harness.cells import certificate_file


class Sweeps:
    """The forking process, and the directories of what its children computed and said."""

    def __init__(self, folder):
        self.log, self.said = folder / "computed.log", folder / "said.txt"
        stored = {**os.environ, "UFM_SCL_COMPILE_CACHE": str(folder / "compiled")}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.program = subprocess.Popen([sys.executable, __file__], env=stored, **pipes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.stdin.close()
        self.program.wait()
        self.program.stdout.close()

    def start(self, *arguments, pause=0.0, failing=()):
        """The process id of a sweep with these arguments."""
        request = {"arguments": list(map(str, arguments)), "log": str(self.log), "said": str(self.said)}
        self.program.stdin.write((json.dumps({**request, "pause": pause, "failing": list(failing)}) + "\n").encode())
        self.program.stdin.flush()
        return self._answer()

    def end(self):
        """The exit status of the sweep started last; minus the signal that killed it. Its id is its own until then."""
        self.program.stdin.write(b"end\n")
        self.program.stdin.flush()
        return self._answer()

    def run(self, *arguments, **options):
        self.start(*arguments, **options)
        return self.end()

    def computed(self):
        """R of every cell computed since this was last asked."""
        lines = self.log.read_text().split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return list(map(float, lines))

    def _answer(self):
        return int(self.program.stdout.readline())


def stub(problem, *, name, inits, seed, method, progress, log, pause, failing, bulk=0):
    """In the place of `measure_problem`: numbers that depend on the arguments alone, seconds that never repeat."""
    sizes = np.bincount(np.asarray(problem.labels))  # not `class_sizes`, which compiles for every n
    R = sizes.max() / sizes.min()
    with open(log, "a") as file:
        file.write(f"{R}\n")
    time.sleep(pause)
    if R in failing:
        raise ArithmeticError(f"no cell\nfor R = {R}")
    random = np.random.default_rng([seed, problem.num_samples])
    files = {}
    for start in range(inits):
        content = {"R": R, "start": start, "number": random.random()}
        files[certificate_file(name, start)] = json.dumps(content).encode()
        progress(1)
    names = ("excess", "delta_gm", "beta_nc", "trace_sw", "max_cosine", "mean_cosine", "gap", "residual", "iterations")
    columns = {name: ("init", random.random(inits)) for name in names}
    words = {name: ("init", np.full(inits, name)) for name in ("status", "verdict", "evidence")}
    flags = {name: ("init", np.ones(inits, bool)) for name in ("certified", "orthogonal_frame")}
    records = {
        f"history_{name}": (("init", "record"), np.cumsum(random.random((inits, 3)), axis=1))
        for name in ("iteration", "excess", "residual", "delta_gm", "beta_nc", "mean_cosine", "max_cosine")
    }
    filling = {"filling": ("number", random.random(bulk))}
    gram = {"gram": (("init", "class", "class_"), np.broadcast_to(np.eye(len(sizes)), (inits, len(sizes), len(sizes))))}
    attrs = {"k": problem.k, "d": problem.d, "tau": float(problem.tau), "n": problem.num_samples, "inits": inits}
    bounds = {"nonneg": 1, "loss_bound": 1.0, "lower_bound": 1.0, "method": method, "seed": seed}
    seconds = {f"seconds_{name}": time.time() for name in ("compile", "solve", "certify")}
    data = {**columns, **words, **flags, **records, **gram, **filling}
    return xr.Dataset(data, attrs={**attrs, **bounds, **seconds}), files


def serve():
    from functools import partial

    from matplotlib.figure import Figure

    from experiments import sweep_imbalance
    from experiments.harness import command_line

    drawings = sweep_imbalance.KIND.drawings
    for name, drawing in drawings.items():  # those of 40 cells take seconds
        drawings[name] = drawing._replace(draw=lambda cells: Figure())
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            arguments = request["arguments"]
            said = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            chosen = {name: request[name] for name in ("log", "pause", "failing")}
            sweep_imbalance.measure_problem = partial(stub, **chosen)
            sys.argv = ["sweep", *arguments]
            command_line.run(partial(sweep_imbalance.main, arguments))
        print(child, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    # A shell that starts a command in the background has it ignore Ctrl-C; these tests press it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve()
