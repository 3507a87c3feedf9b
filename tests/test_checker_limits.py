"""No file makes the checker take more than seconds and 300 MiB: what would is refused before it is begun."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
from test_checker import digest

import ufm
from solvers import check
from solvers.certification.certifier import Certifier
from solvers.checking import reading

# CPU seconds: on an idle core it is at most half of them; a neighbour on the other thread of the core doubles them.
MOST_SECONDS, MOST_MIB = 10, 300
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
    content["claims"] |= {**far, "status": "not certified" if witness else "certified", "theoretical": None}
    content |= {"witness": point if witness else None, "other_minimiser": None, "second_opinion": opinion}
    return signed(content)


def within(tau):
    """Orbits of the largest full batch that is not refused."""
    return int((reading.MOST_WORK / reading.read_bits(reading.Loss("log-sum-exp", True, False, {}), tau, 1)) ** 0.5) - 5


def in_reverse(links):
    """Three orbits a batch of one class, each tied by the one after it, the last by a mixed batch: glued one by one."""
    m = 2 * (links + 2)
    chain = [[2 * j, 2 * j + 2, 2 * j + 4] for j in reversed(range(links))]
    return {"m": m, "tau": 1e4, "sizes": [1] * m, "batches": [*chain, [0, 1, 2]]}


HOSTILE = {
    "a batch of 1,448 orbits": ({"m": 1448}, True),
    "the same for UFM": ({"m": 1448, "model": "UFM", "kind": "elementary"}, True),
    "300,000 batches of two": ({"batches": [[0, 1]] * 300_000}, True),
    "long rows": ({"m": 100, "d": 3000}, True),
    "the largest batch at tau = 1": ({"m": within(1.0), "tau": 1.0, "d": 6}, False),
    "the largest batch at tau = 0.01": ({"m": within(0.01)}, False),
    "the largest batch of UFM": ({"m": within(0.01), "model": "UFM", "kind": "elementary"}, False),
    "two points": ({"m": within(1.0), "tau": 1.0, "d": 6, "witness": True}, False),
    "a matrix of 256 orbits": ({"m": 256, "kind": "matrix"}, False),
    "a matrix of UFM": ({"m": 256, "kind": "matrix", "model": "UFM"}, False),
    "the most batches": ({"batches": [[0, 1]] * 7_500, "tau": 1.0}, False),
    "1,300,000 empty lists": ({"opinion": [[]] * 1_300_000}, False),
    "the longest chain in reverse order": (in_reverse(6_000), False),
    "the longest rows": ({"m": 20, "batches": [[0, 1]], "d": 9000}, False),
}
MEASURED = """import resource, sys
from solvers import check
status = check.main([sys.argv[1]])
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(used.ru_utime + used.ru_stime, int(peak) / 1024)
sys.exit(status)
"""


@pytest.mark.few(4)
@pytest.mark.parametrize(("name", "refused"), [(name, refused) for name, (_, refused) in HOSTILE.items()])
def test_a_hostile_file_takes_seconds_and_little_memory(name, refused, honest, tmp_path):
    path = tmp_path / "forged.json"
    path.write_text(json.dumps(forged(honest, **HOSTILE[name][0]), separators=(",", ":")))
    run = subprocess.run([sys.executable, "-c", MEASURED, path], capture_output=True, text=True, timeout=120)
    seconds, mib = map(float, run.stdout.splitlines()[-1].split())
    print(f"{name}: {path.stat().st_size / 2**20:.2f} MiB, {seconds:.1f} s, {mib:.0f} MiB")
    assert run.returncode in (1, 2)
    assert ("check it with --large" in run.stdout) is refused
    assert seconds < MOST_SECONDS
    assert mib < MOST_MIB


def test_a_trusted_large_file_is_checked(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reading, "MOST_WORK", 10_000)
    problem = ufm.Problem.from_class_sizes([3, 3, 2], d=3, tau=1.0)
    path = str(tmp_path / "frame.json")
    Certifier(problem, conic=False).certify(np.eye(3)[np.asarray(problem.labels)]).save(path)
    assert check.main([path]) == 2
    assert "too many pairs in batches to check in seconds" in capsys.readouterr().out
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
