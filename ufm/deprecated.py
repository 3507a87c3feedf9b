"""Former public names: they work for one release, with a DeprecationWarning that says what to write instead."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
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


def former_argument(old: str, new: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function that takes the former keyword argument `old` in the place of `new`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            if old in named:
                warn(f"{function.__name__}({old}=...)", f"{new}=")
                named[new] = named.pop(old)
            return function(*arguments, **named)

        return call

    return decorate


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


# Modules that pages of the documentation imported from, and where they are now.
FORMER_MODULES = {
    "ufm.floors": "ufm.theory.entry_bounds",
    "ufm.forcing": "ufm.theory.forcing",
    "ufm.geometry": "ufm.model.geometry",
    "ufm.local_rate": "ufm.theory.local_rate",
    "ufm.loss": "ufm.model.evaluation",
    "ufm.problem": "ufm.model.problem",
    "ufm.reshuffling": "ufm.theory.reshuffling",
    "ufm.separation": "ufm.theory.separation",
    "ufm.stochastic_rate": "ufm.theory.stochastic_rate",
    "experiments.compile_cache": "experiments.harness.compile_cache",
    "experiments.problem_file": "experiments.harness.problem_file",
    "experiments.thresholds": "experiments.measurements.thresholds",
}


class FormerModules(MetaPathFinder, Loader):
    """An importer that gives the present module for a former name. Python asks it after all others."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The specification of a former module; None of any other."""
        return spec_from_loader(fullname, self) if fullname in FORMER_MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The present module, with a warning."""
        present = FORMER_MODULES[spec.name]
        warnings.warn(f"{spec.name} is now {present}; the old name goes with the next release", DeprecationWarning, 2)
        module = importlib.import_module(present)
        self._specification = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has been executed already; importing it under the former name leaves its own specification."""
        module.__spec__ = self._specification
