"""Settings written as words, ``key=value``, made to fit a function's keywords."""

from __future__ import annotations

import collections.abc
import inspect
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from fedjax_sim.core.errors import fail, lookup, require


def read_pairs(words: Iterable[str]) -> dict[str, Any]:
    """``key=value`` words by key. A value is read as TOML where it can be (``0.1``, ``true``, ``[28, 28]``), else as text.

    Raises:
      FedError: where a word has no ``=``.
    """
    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        require(
            bool(key and equals),
            "an option is key=value",
            got=repr(word),
            fix="write, for example, alpha=0.1",
        )
        found[key] = _value(text)
    return found


def _value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return (
        value if isinstance(value, bool | int | float | str | list) else text
    )  # TOML has dates, too


def keywords(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """A function's keyword-only parameters."""
    return {
        name: p
        for name, p in inspect.signature(factory).parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def fitted(factory: Callable[..., Any], given: Mapping[str, Any], of: str) -> dict[str, Any]:
    """The settings as keywords of a function, of the types that its signature has.

    Args:
      factory: whose keywords they are.
      given: settings by name.
      of: what the function is, for the errors.

    Raises:
      FedError: where it has no such keyword, where a type does not fit, and where one is missing.
    """
    hints = typing.get_type_hints(factory)
    known = keywords(factory)
    if given and not known:
        fail(f"{of} has no options", got=", ".join(given), fix="leave them out")
    for name in given:
        lookup(f"option of {of}", name, dict(known))
    missing = [
        name
        for name, p in known.items()
        if p.default is inspect.Parameter.empty and name not in given
    ]
    if missing:
        fail(
            f"{of} needs the option {missing[0]}",
            got=", ".join(given) or "no options",
            fix=f"add {missing[0]}=...",
        )
    values = {}
    for name, value in given.items():
        values[name] = _fit(hints.get(name, Any), value, f"{name} of {of}")
    return values


def _fit(hint: Any, value: Any, what: str) -> Any:
    choices = (
        typing.get_args(hint)
        if typing.get_origin(hint) in (typing.Union, types.UnionType)
        else (hint,)
    )
    for choice in choices:
        fits, found = _tried(choice, value)
        if fits:
            return found
    words = " or ".join(_words(choice) for choice in choices if choice is not type(None))
    fail(f"{what} must be {words}", got=repr(value), fix="change it")


def _tried(hint: Any, value: Any) -> tuple[bool, Any]:
    """Whether a value can be of that type, and then the value."""
    origin = typing.get_origin(hint)
    if hint is str:
        return isinstance(value, str | int | float), str(value)
    if origin is Literal:
        return value in typing.get_args(hint), value
    if origin is tuple:
        items = (
            value.split(",")
            if isinstance(value, str)
            else value
            if isinstance(value, list)
            else [value]
        )
        each = typing.get_args(hint)[0]
        tried = [
            _tried(
                each,
                int(item) if each is int and isinstance(item, str) and item.isdecimal() else item,
            )
            for item in items
        ]
        return all(fits for fits, _ in tried), tuple(item for _, item in tried)
    if hint in (int, bool, float):
        number = isinstance(value, (int, float) if hint is float else hint) and isinstance(
            value, bool
        ) == (hint is bool)
        return number, float(value) if number and hint is float else value
    if origin is collections.abc.Sequence:
        return isinstance(value, list) and all(
            _tried(typing.get_args(hint)[0], item)[0] for item in value
        ), value
    return hint is not type(None), value


def _words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if typing.get_origin(hint) is collections.abc.Sequence:
        return "a list of them"
    if typing.get_origin(hint) is tuple:
        return {"a whole number": "whole numbers"}.get(
            plain.get(typing.get_args(hint)[0], ""), "names"
        ) + " with commas between them"
    return plain.get(hint, str(hint))
