"""Former public names: they work for one release, with a DeprecationWarning that says what to write instead."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Made = TypeVar("Made", bound=type)


def warn(old: str, new: str) -> None:
    """Warn the caller's caller that `old` is now `new`."""
    warnings.warn(f"{old} is now {new}; the old name goes with the next release", DeprecationWarning, stacklevel=3)


def former_property(old: str, new: str) -> property:
    """A property `old` with the value of the attribute `new`."""

    def value(self: Any) -> Any:
        warn(f"{type(self).__name__}.{old}", new)
        return getattr(self, new)

    return property(value, doc=f"The former name of `{new}`.")


def former_method(old: str, new: str) -> Callable[..., Any]:
    """A method `old` that calls the method `new`."""

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        warn(f"{type(self).__name__}.{old}", new)
        return getattr(self, new)(*arguments, **named)

    call.__doc__ = f"The former name of `{new}`."
    return call


def former_arguments(**renamed: str) -> Callable[[Made], Made]:
    """A class whose constructor takes former keyword arguments (old="new") beside the present ones."""

    def decorate(made: Made) -> Made:
        constructor: Any = made.__init__

        @functools.wraps(constructor)
        def construct(self: Any, *arguments: Any, **named: Any) -> None:
            for old, new in renamed.items():
                if old in named:
                    warn(f"{made.__name__}({old}=...)", f"{new}=")
                    named[new] = named.pop(old)
            constructor(self, *arguments, **named)

        made.__init__ = construct  # type: ignore[misc]
        return made

    return decorate
