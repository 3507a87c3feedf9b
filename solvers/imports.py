"""Imports that an interrupt does not leave half done."""

from __future__ import annotations

import importlib
import threading
from concurrent.futures import Future
from functools import cache


@cache
def import_whole(name: str) -> None:
    """Import a package on another thread, for the import statement that follows.

    Signals are handled on the main thread alone. An interrupt there ends the wait, while the import goes on to its
    end; within the import it would leave a large package half imported, of no use to this process ever again.
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
