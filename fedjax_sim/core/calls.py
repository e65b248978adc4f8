"""Which registered factory made a thing, and with which arguments.

A run that starts in Python can then leave the folder that the command line leaves: its
configuration is written from the calls that made its parts. Nothing is kept longer than the thing
itself.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class Call(NamedTuple):
    """One call of a registered factory.

    Attributes:
      kind: name of the factory's kind.
      name: its registered name; empty for the function that joins several of a kind.
      arguments: by parameter, as they were given; defaults are left out.
      functions: weak references to the functions of the thing that was made.
      arrays: weak references to its arrays, such as a task's examples.
    """

    kind: str
    name: str
    arguments: dict[str, Any]
    functions: tuple[weakref.ref[Any], ...]
    arrays: tuple[weakref.ref[Any], ...] = ()

    def holds(self, array: Any) -> bool:
        """Whether the thing that was made has this very array."""
        return any(ref() is array for ref in self.arrays)


_CALLS: weakref.WeakKeyDictionary[Any, list[Call]] = weakref.WeakKeyDictionary()
"""Every function that a call made, to the calls that returned it."""


def recorded(kind: str, name: str, factory: Callable[..., Any]) -> Callable[..., Any]:
    """A factory whose calls are remembered for as long as what they return exists.

    Args:
      kind: name of its kind.
      name: its registered name.
      factory: returns a function, or a NamedTuple of functions.

    >>> from fedjax_sim.core.calls import call_of, recorded
    >>> constant = recorded("schedule", "constant", lambda value: lambda step: value)
    >>> call_of(constant(0.5)).arguments
    {'value': 0.5}
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def make(*args: Any, **settings: Any) -> Any:
        thing = factory(*args, **settings)
        functions = list(functions_of(thing))
        given = (*args, *settings.values())
        if functions and not any(thing is value for value in given):
            arguments = dict(signature.bind(*args, **settings).arguments)
            arrays = tuple(map(weakref.ref, arrays_of(thing)))
            call = Call(kind, name, arguments, tuple(map(weakref.ref, functions)), arrays)
            for function in _new(functions, given):
                _remember(function, call)
        return thing

    return make


def _new(functions: list[Any], given: tuple[Any, ...]) -> list[Any]:
    """The functions that the arguments lack; all, if they have all of them.

    A call holds its arguments. Were it kept for a function of theirs, neither would ever be freed.
    """
    known = {id(function) for value in given for function in functions_of(value)}
    return [function for function in functions if id(function) not in known] or functions


def _remember(function: Any, call: Call) -> None:
    """Notes a call. It replaces one that returned the very same functions and arrays."""
    others = [other for other in _CALLS.get(function, []) if _is_other(other, call)]
    _CALLS[function] = [*others, call]


def _is_other(known: Call, call: Call) -> bool:
    alive = all(ref() is not None for ref in known.functions)
    same = _same(known.functions, call.functions) and _same(known.arrays, call.arrays)
    return alive and not same


def _same(refs: Sequence[weakref.ref[Any]], others: Sequence[weakref.ref[Any]]) -> bool:
    """Whether both refer to the very same things; arrays cannot be compared with ``==``."""
    return len(refs) == len(others) and all(
        ref() is other() for ref, other in zip(refs, others, strict=True)
    )


def call_of(thing: Any) -> Call | None:
    """The call that made a thing; ``None`` if no registered factory did, or it was changed since.

    Args:
      thing: a function, or a NamedTuple of functions.
    """
    functions = list(functions_of(thing))
    calls = (call for function in functions for call in calls_with(function))
    return next((call for call in calls if _made(call, functions)), None)


def calls_with(function: Any) -> list[Call]:
    """The calls that returned this function, alone or in a NamedTuple, newest first."""
    try:
        return _CALLS.get(function, [])[::-1]
    except TypeError:  # not hashable, or without weak references
        return []


def functions_of(thing: Any) -> Iterator[Any]:
    """The functions of a thing, those in inner NamedTuples included, in order."""
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        for field in thing:
            yield from functions_of(field)
    elif inspect.isfunction(thing):
        yield thing


def arrays_of(thing: Any) -> Iterator[np.ndarray]:
    """The numpy arrays of a thing, those in inner tuples and dictionaries included."""
    if isinstance(thing, dict):
        thing = tuple(thing.values())
    if isinstance(thing, tuple):
        for field in thing:
            yield from arrays_of(field)
    elif isinstance(thing, np.ndarray):
        yield thing


def _made(call: Call, functions: list[Any]) -> bool:
    if len(call.functions) != len(functions):
        return False
    return all(ref() is each for ref, each in zip(call.functions, functions, strict=True))
