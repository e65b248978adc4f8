"""A factory's settings, divided into numbers, which are traced, and structure, which compiles a
program of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """Settings of one call of a factory.

    Attributes:
      structure: name to value, for what decides the program: whole numbers, booleans, strings,
        functions, optimizers.
      numbers: name to float, for what is an argument of the program.
    """

    structure: dict[str, Any]
    numbers: dict[str, float]


def divide(
    factory: Callable[..., Any], given: Mapping[str, Any], static: frozenset[str]
) -> Settings:
    """Divides settings, and fills in the defaults of the numbers.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.
      given: settings that differ from the defaults, or repeat them.
      static: names of numbers that the factory cannot trace, such as a share that decides a shape.
    """
    defaults = defaults_of(factory)
    values = {**{name: value for name, value in defaults.items() if is_number(value)}, **given}
    floats = [
        name
        for name, value in values.items()
        if name not in static
        and (is_number(value) or (is_whole(value) and _takes_float(defaults, name)))
    ]
    numbers = {name: float(values[name]) for name in sorted(floats)}
    structure = {
        name: value
        for name, value in values.items()
        if name not in numbers and not _is_default(defaults, name, value)
    }
    return Settings(structure, numbers)


def _is_default(defaults: Mapping[str, Any], name: str, value: Any) -> bool:
    return name in defaults and fingerprint(value) == fingerprint(defaults[name])


def defaults_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """Defaults of a factory's settings, by name."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def is_number(value: Any) -> bool:
    """Whether a value is a Python float."""
    return isinstance(value, float)


def is_whole(value: Any) -> bool:
    """Whether a value is a Python int and no boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def _takes_float(defaults: Mapping[str, Any], name: str) -> bool:
    return is_number(defaults.get(name))


class Structure:
    """Structural settings as a key of a cache: equal if the settings do the same, though they were
    made twice."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)
        self._key = tuple((name, fingerprint(self.values[name])) for name in sorted(self.values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def fingerprint(value: Any) -> Any:
    """A hashable description of a value, the same for two functions of the same code that close
    over equal values.

    Args:
      value: a setting: a number, a text, a function, or a tuple of them such as an aggregator.

    Returns:
      Nested tuples. What cannot be described stands for itself by identity.
    """
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = (*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return (value.__module__, value.__code__, *map(fingerprint, parts))
    if isinstance(value, partial):
        parts = (value.func, *value.args, *value.keywords.values())
        return ("partial", *value.keywords, *map(fingerprint, parts))
    if isinstance(value, tuple | list):
        return (type(value).__qualname__, *map(fingerprint, value))
    if isinstance(value, Mapping):
        return ("mapping", *value, *map(fingerprint, value.values()))
    if isinstance(value, int | float | str | type(None)):
        return (type(value).__qualname__, value)
    return _Identity(value)


class _Identity:
    """Keeps a value alive, and is equal to nothing but itself."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
