"""The command line of every experiment: a frozen dataclass in, one clear line and exit status 2 for bad input."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import os
import resource
import select
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import tyro

from experiments.harness import compile_cache
from ufm.errors import InvalidInput

BAD_INPUT = 2
# Bytes of addresses that the smallest sweep takes, rounded up; most of them are reserved and never used.
LEAST_MEMORY = 3_072_000_000
_GO_ON = "finished cells are kept, the same command goes on from them"

Config = TypeVar("Config")


def parse(config: type[Config], arguments: Sequence[str] | None = None) -> Config:
    """The configuration from the command line; its docstrings are the help. Exits 2 with one line if it is bad."""
    _check_numbers(config, sys.argv[1:] if arguments is None else arguments)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(config, args=arguments, description=f"{inspect.getdoc(config)}\n\n{compile_cache.HELP}")
    except SystemExit as stop:
        if stop.code == 0:
            raise
        refuse(_first_paragraph(complaint.getvalue()))


def _check_numbers(config: type, words: Sequence[str]) -> None:
    """Exits 2 with one line where a number is written as 1_0, or in digits that are not ASCII: Python would take it."""
    kinds, flag = get_type_hints(config), ""
    for word in words:
        if word.startswith("--"):
            flag, _, word = word.partition("=")
        named = _kinds_in(kinds.get(flag.removeprefix("--").replace("-", "_")))
        if named & {int, float} and not named & {str, Path} and ("_" in word or not word.isascii()):
            refuse(f"{flag} = {word!r}: write a number in digits, without underscores; see --help")


def _kinds_in(kind: Any) -> set[Any]:
    """The types that an annotation is made of, and those of its literals."""
    parts = get_args(kind)
    if not parts:
        return {kind}
    return {type(part) for part in parts} if get_origin(kind) is Literal else set().union(*map(_kinds_in, parts))


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with main's status.

    A bad input anywhere becomes one line and status 2, and so does a file that cannot be written. Ctrl-C and
    SIGTERM stop cleanly, with status 130 and 143. What to do next is said. What cannot be encoded where it is said, as
    in a path, is said with a backslash.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with _terminable():
        try:
            _check_memory()
            compile_cache.enable()
            status = main()
        except InvalidInput as bad:
            refuse(str(bad))
        except MemoryError:
            refuse(f"not enough memory; {_GO_ON}: {invocation()}")
        except OSError as error:
            if isinstance(error, BrokenPipeError) and not _is_read():
                sys.exit(128 + signal.SIGPIPE)
            refuse(f"{error.filename or 'a file'}: {error.strerror or error}; {_GO_ON}: {invocation()}")
        except KeyboardInterrupt as stop:
            print(f"stopped; {_GO_ON}: {invocation()}", file=sys.stderr)
            status = 128 + (signal.SIGTERM if isinstance(stop, _TerminatedError) else signal.SIGINT)
    sys.exit(status)


def _check_memory() -> None:
    """Raises InvalidInput where a limit of the shell leaves less memory than XLA's threads reserve: it would abort."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:
        gigabytes = LEAST_MEMORY / 1e9
        raise InvalidInput("ulimit -v", limit // 1024, f"give at least {LEAST_MEMORY // 1024} ({gigabytes:g} GB)")


def _is_read() -> bool:
    """Whether what is printed is still read; if not, as after `| head`, nothing more is printed."""
    try:
        place = sys.stdout.fileno()
    except OSError:
        return True
    requested = select.poll()
    requested.register(place, select.POLLOUT)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in requested.poll(0)):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), place)  # the buffer is written once more at the end
    return False


def program(module: str) -> list[str]:
    """The first words of a command that runs a module, as any shell in this directory can run it.

    That is its console command, with its directory where a shell does not find it, as in an environment that is not
    activated; `python -m` where it is not installed. A directory `experiments` of the user's own does not stand in
    the way of a console command.
    """
    name = f"ufm-{module.rpartition('.')[2].replace('_', '-')}"
    script = Path(sys.executable).with_name(name)
    if not os.access(script, os.X_OK):
        return [sys.executable, "-m", module]
    activated = sys.prefix in (os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX"))
    return [name] if shutil.which(name) == str(script) and not activated else [str(script)]


def invocation() -> str:
    """The command that runs now, to be gone on with: without --fresh."""
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    if specification:
        words = program(specification.name)
    else:
        words = sys.argv[:1] if os.access(sys.argv[0], os.X_OK) else [sys.executable, sys.argv[0]]
    return shlex.join([*words, *(word for word in sys.argv[1:] if word != "--fresh")])


def command(module: str, config: Any, **changes: Any) -> str:
    """The command line that gives a configuration with some fields changed; defaults are left out."""
    words = program(module)
    for field in dataclasses.fields(config):
        value = changes.get(field.name, getattr(config, field.name))
        flag = field.name.replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(worded, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def worded(value: object) -> str:
    """A value as a word of a command, whole floats without their point."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def refuse(message: str) -> NoReturn:
    """One line on standard error, exit status 2."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _first_paragraph(boxed: str) -> str:
    """What the parser says above the first rule of its box, in one line."""
    said = []
    for line in boxed.splitlines():
        text = line.strip("│╭╮╰╯ ")
        if line.startswith("│") and set(text) == {"─"}:
            break
        if line.startswith("│"):
            said.append(text)
    sentence = " ".join(said) if said else " ".join(boxed.split())
    return f"{sentence.rstrip('.')}; see --help"


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which takes the same way out as Ctrl-C."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises in the main thread, where alone that can be arranged."""

    def stop(number: int, frame: object) -> None:
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
