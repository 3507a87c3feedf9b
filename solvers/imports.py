"""Imports that an interrupt does not leave incomplete."""

from __future__ import annotations

import importlib
import threading
from concurrent.futures import Future
from functools import cache


@cache
def import_whole(name: str) -> None:
    """Import a package on another thread, before the import statement for it.

    Signals are handled on the main thread alone. There, an interrupt ends the wait, while the import runs to its end.
    An interrupt within the import itself would leave a large package partly imported, and unusable in this process.
    """
    done: Future[None] = Future()

    def imported() -> None:
        try:
            importlib.import_module(name)
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=imported, name=f"import {name}").start()
    done.result()
