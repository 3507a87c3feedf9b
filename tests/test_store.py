"""The store: what is damaged, moved or half-written is never read as a cell, and no two processes share one."""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import xarray as xr
from stub_sweep import stub

from experiments import benchmark, sweep_batching, sweep_imbalance
from experiments.harness import command_line
from experiments.harness.store import Store
from solvers import files
from ufm import InvalidInput

NAMES = [f"cells/{letter}.nc" for letter in "abc"]
SMALL = ["--R", *map(str, range(1, 13)), "--k", "3", "--n-min", "2", "--d", "4", "--inits", "2"]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    for number, name in enumerate(NAMES):
        cell = xr.Dataset({"x": ("init", np.arange(5.0) + number)}, attrs={"number": number})
        store.write_cell(name, cell, {f"certificates/{number}-{s}.json": f"{number} {s}".encode() for s in range(2)})
    return store


def flip(random, paths):
    path = random.choice(paths)
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(bytes(content))
    return [path]


def truncate(random, paths):
    path = random.choice(paths)
    os.truncate(path, random.randrange(path.stat().st_size))
    return [path]


def swap(random, paths):
    suffix = random.choice([".nc", ".json"])
    first, second = random.sample([path for path in paths if path.suffix == suffix], 2)
    pairs = [(first, second)]
    if first.suffix == second.suffix == ".nc" and random.random() < 0.7:  # with their checksums
        pairs.append((first.with_name(f"{first.name}.sha256"), second.with_name(f"{second.name}.sha256")))
    for one, other in pairs:
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    return [first, second]


def remove(random, paths):
    path = random.choice(paths)
    path.unlink()
    return [path]


@pytest.mark.parametrize("times", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_damage_is_detected_and_named(store, times, capfd):
    generator = random.Random(7)
    whole = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    assert len(whole) == 12
    cells = {name: store.read_cell(name) for name in NAMES}
    for _ in range(times):
        damaged = generator.choice([flip, truncate, swap, remove])(generator, sorted(whole))
        changed = [path for path, content in whole.items() if not path.exists() or path.read_bytes() != content]
        assert set(damaged) <= set(changed)
        hurt = {name for number, name in enumerate(NAMES) for path in changed if _belongs(path, number, name)}
        assert hurt
        for name, cell in cells.items():
            read = store.read_cell(name)
            assert read is None if name in hurt else read.identical(cell)
        said = capfd.readouterr().err.splitlines()
        assert len(said) == len([name for name in hurt if (store.root / name).exists()])
        for path in changed:
            path.write_bytes(whole[path])


def _belongs(path, number, name):
    return path.name.startswith(name.removeprefix("cells/")) or path.name.startswith(f"{number}-")


def test_a_sealed_file_that_is_no_cell_is_refused(store, capfd):
    for content in (b"not netCDF", b"", bytes(xr.Dataset({"x": ("i", [1.0])}).to_netcdf(engine="h5netcdf"))):
        (store.root / NAMES[0]).write_bytes(content)
        digest = subprocess.run(["sha256sum"], input=content, capture_output=True, check=True).stdout[:64]
        (store.root / f"{NAMES[0]}.sha256").write_bytes(digest + b"\n")
        assert store.read_cell(NAMES[0]) is None
        assert len(capfd.readouterr().err.splitlines()) == 1


def test_whatever_reading_a_cell_raises_it_is_made_again(store, monkeypatch, capfd):
    for error in (KeyError("x"), RuntimeError("two\nlines"), MemoryError(), RecursionError()):

        def fails(*_, error=error, **__):
            raise error

        for of, name in ((xr, "open_dataset"), (hashlib, "sha256")):
            with monkeypatch.context() as patched:
                patched.setattr(of, name, fails)
                assert store.read_cell(NAMES[0]) is None
            assert len(capfd.readouterr().err.splitlines()) == 1


def test_one_process_at_a_time(tmp_path):
    store = Store(tmp_path)
    with store.alone():
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        with pytest.raises(InvalidInput, match=f"process {os.getpid()} on "), Store(tmp_path).alone():
            pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".lock").write_text('{"pid": 1, "host": "elsewhere"}')  # left by a killed process
    with store.alone():
        pass
    assert not (tmp_path / ".lock").exists()


KILLED = """
import os, signal, sys; from pathlib import Path
from experiments.harness.store import Store
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
store = Store(Path(sys.argv[1]))
with store.alone():
    store.write_bytes("cells/a.nc", b"half")
"""


def test_only_what_a_killed_process_was_writing_is_removed(tmp_path):
    """A folder full of look-alikes: of strangers, of earlier kills elsewhere, of a sweep in a directory below."""
    root = tmp_path / "[runs] a"
    alike = [".photos.zip.part", ".a.nc.x7.part", "cells/.a.nc.0123abcd.part", "cells/.b.part", "x/y/.z.part", "b.part"]
    alike += ["checkpoints/.c.npz.01234567.part", "child/cells/.a.nc.01234567.part", "child/.lock", ".lock.part"]
    for name in alike:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    assert subprocess.run([sys.executable, "-c", KILLED, root], check=False).returncode == -signal.SIGKILL
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} - {*alike, ".lock"}
    assert len(left) == 1
    moved = root.rename(tmp_path / "moved")
    with Store(moved).alone():
        assert not (moved / left.pop()).exists()
    assert {str(path.relative_to(moved)): path.read_bytes() for path in moved.rglob("*") if path.is_file()} == {
        name: name.encode() for name in alike
    }


NONSENSE = ["", "[]", "{", "[" * 100_000, '{"writing": 3}', '{"writing": "a.txt"}', '{"writing": "\\u0000.part"}', "\0"]


@pytest.mark.parametrize("said", NONSENSE)
def test_a_lock_file_that_says_nonsense(tmp_path, said):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / ".lock").write_text(said)
    with Store(tmp_path).alone(), pytest.raises(InvalidInput, match="process"), Store(tmp_path).alone():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("command", "small"), [(sweep_imbalance, "--inits"), (sweep_batching, "--partitions"), (benchmark, "--starts")]
)
def test_every_command_takes_the_lock(command, small, tmp_path):
    with Store(tmp_path).alone(), pytest.raises(InvalidInput, match=f"process {os.getpid()} on "):
        command.main(["--R", "1", small, "1", "--out", str(tmp_path)])


def test_locks_of_many_processes_never_overlap(tmp_path):
    program = (
        "import sys, time; from pathlib import Path\n"
        "from experiments.harness.lock import locked; from ufm import InvalidInput\n"
        "root, end, inside = Path(sys.argv[1]), time.time() + 2, 0\n"
        "while time.time() < end:\n"
        "    try:\n"
        "        with locked(root):\n"
        "            (root / 'inside').mkdir(); inside += 1; (root / 'inside').rmdir()\n"
        "    except InvalidInput:\n"
        "        pass\n"
        "print(inside)"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for racer in racers:
        said, complaint = racer.communicate()
        assert racer.returncode == 0, complaint.decode()
        assert int(said) > 0


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "a.json"
    files.write_atomically(path, b"old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(OSError, match="No space left") as raised:
        files.write_atomically(path, b"new")
    assert raised.value.filename == str(path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.json": b"old"}


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A directory with room for 1 MiB, and what makes room: a file system where one may be mounted, else a count."""
    root = tmp_path / "disk"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        yield root, lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(root)], check=True)
        subprocess.run(["umount", str(root)], check=True)
        return
    flush = os.fsync

    def limited(handle):
        if sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) > 2**20:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(handle)

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", limited)
        yield root, patched.undo


@pytest.mark.thorough
def test_a_full_disk_is_said_and_the_sweep_goes_on_when_there_is_room(small_disk, tmp_path, monkeypatch, capsys):
    root, make_space = small_disk
    log = tmp_path / "log"
    replacement = partial(stub, log=log, pause=0, failing=(), bulk=20_000)
    monkeypatch.setattr(sweep_imbalance, "measure_problem", replacement)

    def run():
        with pytest.raises(SystemExit) as stopped:
            command_line.run(lambda: sweep_imbalance.main([*SMALL, "--out", str(root / "runs")]))
        return stopped.value.code

    assert run() == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "No space left on device; finished cells are stored" in error
    assert not list(root.rglob("*.part"))
    seals = list(root.rglob("*.sha256"))
    assert 1 <= len(seals) < 12
    log.unlink()
    make_space()
    assert run() == 0
    assert len(log.read_text().split()) == 12 - len(seals)
    assert len((root / "runs" / "summary.csv").read_text().splitlines()) == 13
