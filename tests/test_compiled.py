"""Functions are compiled once a signature: here, or on another thread before they are called."""

import gc
import threading
import time

import jax
import numpy as np
import pytest

from solvers.compilation import compiled
from solvers.compilation.compiled import LOG, Compiled, abandon, compile_seconds


def scaled(x, *, by):
    return {"scaled": by * x["x"]}


def argument(count):
    return {"x": np.arange(count, dtype=np.float64)}


def until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_compilation_a_signature():
    function, before = Compiled(scaled), len(LOG)
    for x, by in ((argument(3), 2.0), (argument(3), 2.0), (argument(4), 2.0), (argument(4), 3.0)):
        assert np.array_equal(function(x, by=by)["scaled"], by * x["x"])
    assert [entry.name for entry in LOG[before:]] == ["scaled"] * 3


def test_few_executables_are_kept_those_asked_for_last(monkeypatch):
    """Each takes hundreds of mapped regions of memory, and a process that has too many is ended."""
    monkeypatch.setattr(compiled, "MOST_EXECUTABLES", 3)
    doubled, tripled, before = Compiled(scaled), Compiled(scaled), len(LOG)
    compiled._RECENT.clear()
    gc.collect()
    alive = len(jax.devices()[0].client.live_executables())
    for function, count in zip([doubled, tripled] * 4, (1, 2, 1, 3, 1, 2, 4, 2), strict=True):
        assert function(argument(count), by=2.0)["scaled"].shape == (count,)
        assert len(doubled.executables) + len(tripled.executables) <= 3
    assert len(LOG) - before == 4  # 1, 2, 3, and 4, which sends 3 away
    for count in range(5, 25):
        doubled(argument(count), by=2.0)
    gc.collect()
    assert len(jax.devices()[0].client.live_executables()) - alive <= 3


def test_what_was_prepared_is_not_compiled_again():
    function, before = Compiled(scaled), len(LOG)
    function.prepare({"x": jax.ShapeDtypeStruct((5,), np.float64)}, by=2.0)
    until(lambda: len(LOG) > before)
    waited = compile_seconds()
    assert np.array_equal(function(argument(5), by=2.0)["scaled"], 2 * np.arange(5))
    function.prepare(argument(5), by=2.0)
    assert len(LOG) == before + 1
    assert compile_seconds() - waited <= LOG[-1].seconds


def test_a_call_waits_for_what_is_being_compiled_and_compiles_what_is_only_queued(monkeypatch):
    entered, go_on = threading.Event(), threading.Event()
    compiling = []

    def slow(x, *, by):
        compiling.append(threading.current_thread() is threading.main_thread())
        if not compiling[-1]:
            entered.set()
            assert go_on.wait(60)
        return scaled(x, by=by)

    pool = compiled.ThreadPoolExecutor(1)
    monkeypatch.setattr(compiled, "_threads", lambda: pool)
    function, waited = Compiled(slow), compile_seconds()
    function.prepare(argument(2), by=1.0)
    assert entered.wait(60)
    function.prepare(argument(3), by=1.0)  # behind the first, which stands still
    assert function(argument(3), by=1.0)["scaled"].shape == (3,)
    threading.Timer(0.2, go_on.set).start()
    assert function(argument(2), by=1.0)["scaled"].shape == (2,)
    pool.shutdown()
    assert compiling == [False, True]
    assert compile_seconds() - waited >= 0.1


def test_an_error_is_that_of_the_call():
    def broken(x, *, by):
        raise ValueError("no such thing")

    function, before = Compiled(broken), len(LOG)
    for _ in range(2):
        with pytest.raises(ValueError, match="no such thing"):
            function(argument(2), by=1.0)
    function.prepare(argument(3), by=1.0)
    with pytest.raises(ValueError, match="no such thing"):
        function(argument(3), by=1.0)
    assert len(LOG) == before


def test_what_was_abandoned_is_compiled_when_it_is_called():
    entered, go_on = threading.Event(), threading.Event()

    def standing(x, *, by):
        entered.set()
        assert go_on.wait(60)
        return scaled(x, by=by)

    function, before = Compiled(scaled), len(LOG)
    Compiled(standing).prepare(argument(2), by=1.0)
    assert entered.wait(60)
    for count in range(20, 40):
        function.prepare(argument(count), by=1.0)
    abandon()
    go_on.set()
    until(lambda: len(LOG) > before)
    assert function(argument(39), by=1.0)["scaled"].shape == (39,)
    assert [entry.name for entry in LOG[before:]].count("scaled") < 20
