"""No file makes the checker take more than it states: what would is refused before it is begun."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
from flint import ctx
from test_checker import digest

import ufm
from solvers.certification.certifier import Certifier
from ufm_check import bounds, check, reading

# What the checker states, in CPU seconds: on an idle core it is at most half of them; a neighbour on the other thread
# of the core doubles them. AT_REST: MiB of a process that has checked nothing.
MOST_SECONDS, MOST_MIB, AT_REST = 120, 2048, 40
ZERO, THIRD = (0.0).hex(), "0x1.5555555555555p-1"


@pytest.fixture(scope="module")
def honest():
    """The content of a real certificate."""
    problem = ufm.Problem.from_class_sizes([2, 2], d=2, tau=1.0)
    certificate = Certifier(problem, conic=False).certify(np.eye(2)[[0, 0, 1, 1]])
    return json.loads(certificate.serialised())


def signed(content):
    own = {name: value for name, value in content["problem"].items() if name not in ("digest", "samples_digest")}
    content["problem"]["digest"] = digest(own)
    content.pop("checksum", None)
    return {**content, "checksum": digest(content)}


def forged(
    honest, m=4, batches=None, d=1, tau=0.01, model="UFM+", kind="laplacian", witness=False, opinion=None, sizes=None
):
    """A well-formed certificate whose sums all have to be done before it is seen that it proves nothing."""
    content = copy.deepcopy(honest)
    content["problem"] |= {
        "model": model,
        "d": d,
        "tau": tau.hex(),
        "classes": [a % 2 for a in range(m)],
        "sizes": sizes or [2] * m,
        "batches": [list(range(m))] if batches is None else batches,
    }
    point = {"rows": [[THIRD] * d] * m, "norms": ["0x1.fffffffffffffp-1"] * m}
    content["point"] |= point
    content["lower_bound"] = {"kind": kind, "source": "", "value": (-1e300).hex()}
    if kind == "matrix":
        tables = {"gram": [[THIRD] * (a + 1) for a in range(m)], "N": [[ZERO] * (a + 1) for a in range(m)]}
        content["lower_bound"] |= {**tables, "v": ["0x1.0p+40"] * m}
    far = {"upper": (1e300).hex(), "lower": (-1e300).hex(), "gap": (1e300).hex(), "unique": None, "implied": None}
    content["claims"] |= {**far, "status": "not certified" if witness else "certified"}
    problem = reading.read_problem(signed(content)["problem"], 10**6)
    with ctx.workprec(problem.bits):
        content["claims"]["theoretical"] = float(bounds.counted(problem)).hex()
    content |= {"witness": point if witness else None, "other_minimiser": None, "second_opinion": opinion}
    return signed(content)


def within(tau, room):
    """Orbits of the largest full batch that is not refused."""
    each = 600 + reading.read_bits(reading.Loss("log-sum-exp", True, False, {}), tau, 1)
    return int((room * reading.MOST_WORK / each) ** 0.5) - 5


def in_reverse(links):
    """Three orbits a batch of one class, each tied by the one after it, the last by a mixed batch: glued one by one."""
    links = int(links)
    m = 2 * (links + 2)
    chain = [[2 * j, 2 * j + 2, 2 * j + 4] for j in reversed(range(links))]
    return {"m": m, "tau": 1e4, "sizes": [1] * m, "batches": [*chain, [0, 1, 2]]}


# By the share of the limits that a file may take.
HOSTILE = {
    "a batch of very many orbits": (lambda room: {"m": within(1.0, room) + 50}, True),
    "the same for UFM": (lambda room: {"m": within(1.0, room) + 50, "model": "UFM", "kind": "elementary"}, True),
    "very many batches of two": (lambda room: {"batches": [[0, 1]] * int(400_000 * room)}, True),
    "long rows": (lambda room: {"m": 100, "d": int(80_000 * room)}, True),
    "the largest batch at tau = 1": (lambda room: {"m": within(1.0, room), "tau": 1.0, "d": 3}, False),
    "the largest batch at tau = 0.01": (lambda room: {"m": within(0.01, room)}, False),
    "the largest batch of UFM": (
        lambda room: {"m": within(0.01, room), "model": "UFM", "kind": "elementary"},
        False,
    ),
    "two points": (lambda room: {"m": within(1.0, room), "tau": 1.0, "d": 3, "witness": True}, False),
    "a matrix of 256 orbits": (lambda room: {"m": 256, "kind": "matrix"}, False),
    "a matrix of UFM": (lambda room: {"m": 256, "kind": "matrix", "model": "UFM"}, False),
    "the most batches": (lambda room: {"batches": [[0, 1]] * int(35_000 * room), "tau": 1.0}, False),
    "empty lists": (lambda room: {"opinion": [[]] * int(13_000_000 * room)}, False),
    "the longest rows": (lambda room: {"m": 20, "batches": [[0, 1]], "d": int(90_000 * room)}, False),
    "the longest chain in reverse order": (lambda room: in_reverse(27_000 * room), False),
}
MEASURED = """import resource, sys
from ufm_check import bounds, reading
from ufm_check import check
path, room = sys.argv[1], float(sys.argv[2])
try:
    print(*check.check(reading.read(path, room), room))
except reading.Refusal as refusal:
    print(*refusal.args)
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(used.ru_utime + used.ru_stime, int(peak) / 1024)
"""


@pytest.mark.few(4)
@pytest.mark.parametrize("room", [0.1, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "refused"), [(name, refused) for name, (_, refused) in HOSTILE.items()])
def test_a_hostile_file_takes_no_more_than_is_stated(name, refused, room, honest, tmp_path):
    path = tmp_path / "forged.json"
    path.write_text(json.dumps(forged(honest, **HOSTILE[name][0](room)), separators=(",", ":")))
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, path, str(room)], capture_output=True, text=True, timeout=600, check=True
    )
    seconds, mib = map(float, run.stdout.splitlines()[-1].split())
    print(f"{name}: {path.stat().st_size / 2**20:.2f} MiB, {seconds:.1f} s, {mib:.0f} MiB", run.stdout[:100])
    assert ("check it with --large" in run.stdout) is refused
    assert seconds < max(room * MOST_SECONDS, 10)
    assert mib < AT_REST + max(room * MOST_MIB, 256)


def test_the_limits_are_stated_in_seconds_and_bytes():
    assert (
        f"{MOST_SECONDS} seconds, {MOST_MIB // 1024} GiB of memory or {reading.MOST_BYTES >> 20} MiB" in check.__doc__
    )


def test_a_trusted_large_file_is_checked(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reading, "MOST_WORK", 10_000)
    problem = ufm.Problem.from_class_sizes([3, 3, 2], d=3, tau=1.0)
    path = str(tmp_path / "frame.json")
    Certifier(problem, conic=False).certify(np.eye(3)[np.asarray(problem.labels)]).save(path)
    assert check.main([path]) == 2
    assert "too many pairs in batches to check within the limits" in capsys.readouterr().out
    assert check.main(["--large", path]) == 0


@pytest.mark.parametrize("tau", [0.05, 1.0, 30.0])
def test_bounds_are_printed_as_an_interval_that_holds_both_losses(tau, tmp_path, capsys):
    """The printed gap is that before rounding, so nothing printed may look as if it were their difference."""
    problem = ufm.Problem.from_class_sizes([3000, 30, 7], d=4, tau=tau)
    certificate = Certifier(problem, conic=False).certify(np.eye(3, 4)[np.asarray(problem.labels)])
    certificate.save(tmp_path / "frame.json")
    assert check.main([str(tmp_path / "frame.json")]) == 0
    said = capsys.readouterr().out
    words = said.split("lie between ")[1].split(" apart")[0].replace(",", "").split()
    low, high, gap = float(words[0]), float(words[2]), float(words[-1])
    assert low <= certificate.lower <= certificate.upper <= high
    assert gap >= 0
    assert certificate.gap <= gap


def test_what_certifies_is_readable_up_to_the_largest_counts(tmp_path):
    problem = ufm.Problem([0, 1], 2, 1.0, multiplicity=[2**53 - 3, 3])
    certificate = Certifier(problem, conic=False).certify(np.eye(2))
    certificate.save(tmp_path / "largest.json")
    assert check.main([str(tmp_path / "largest.json")]) == 0
    for counts in ([2**53, 1], [2**53 + 2, 3], [1e18, 5], [2**52, 2**52 + 1]):
        with pytest.raises(ufm.InvalidInput, match=r"multiplicity = .* more than 2\^53 samples in all"):
            ufm.Problem([0, 1], 2, 1.0, multiplicity=counts)
