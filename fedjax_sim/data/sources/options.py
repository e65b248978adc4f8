"""Options written as ``key=value`` on a command line, converted to the keywords of a function."""

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
    """Returns the values of ``key=value`` words by key.

    A value is parsed as TOML if possible (``0.1``, ``true``, ``[28, 28]``); otherwise it is text.

    Args:
      words: the words.

    Raises:
      FedError: if a word has no ``=``, or nothing before it.

    Example:
      >>> from fedjax_sim.data.sources.options import read_pairs
      >>> read_pairs(["alpha=0.1", "shape=[28, 28]", "label=digit"])
      {'alpha': 0.1, 'shape': [28, 28], 'label': 'digit'}
    """
    values = {}
    for word in words:
        key, equals, text = word.partition("=")
        require(
            bool(key and equals),
            "an option is key=value",
            got=repr(word),
            fix="write, for example, alpha=0.1",
        )
        values[key] = _value(text)
    return values


def _value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    is_plain = isinstance(value, bool | int | float | str | list)  # TOML has dates and tables, too
    return value if is_plain else text


def keywords(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the keyword-only parameters of a function, by name."""
    return {
        name: p
        for name, p in inspect.signature(factory).parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def convert_options(
    factory: Callable[..., Any], given: Mapping[str, Any], of: str
) -> dict[str, Any]:
    """Converts options to the types of a function's keyword-only parameters.

    Args:
      factory: the function.
      given: options by name.
      of: description of the function, for the message.

    Raises:
      FedError: if the function has no such parameter, a value has the wrong type, or an option
        without default is missing.
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
            setting=missing[0],
        )
    return {
        name: _converted(hints.get(name, Any), value, name, of) for name, value in given.items()
    }


def _converted(hint: Any, value: Any, name: str, of: str) -> Any:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    choices = typing.get_args(hint) if is_union else (hint,)
    for choice in choices:
        fits, converted = _convert(choice, value)
        if fits:
            return converted
    words = " or ".join(_words(choice) for choice in choices if choice is not type(None))
    fail(
        f"{name} of {of} must be {words}",
        got=repr(value),
        fix=f"give {name} such a value",
        setting=name,
    )


def _convert(hint: Any, value: Any) -> tuple[bool, Any]:
    """Returns whether a value has a type or can be converted to it, and the converted value."""
    origin = typing.get_origin(hint)
    if hint is str:
        return isinstance(value, str | int | float), str(value)
    if origin is Literal:
        return value in typing.get_args(hint), value
    if origin is tuple:
        return _convert_items(typing.get_args(hint)[0], value)
    if hint in (int, bool, float):
        types_of_hint = (int, float) if hint is float else hint
        fits = isinstance(value, types_of_hint) and isinstance(value, bool) == (hint is bool)
        return fits, float(value) if fits and hint is float else value
    if origin is collections.abc.Sequence:
        item_hint = typing.get_args(hint)[0]
        fits = isinstance(value, list) and all(_convert(item_hint, item)[0] for item in value)
        return fits, value
    return hint is not type(None), value


def _convert_items(item_hint: Any, value: Any) -> tuple[bool, tuple[Any, ...]]:
    """Converts a list, a text with commas, or a single value to a tuple."""
    items = value.split(",") if isinstance(value, str) else value
    results = [
        _convert(item_hint, int(item) if _is_decimal(item_hint, item) else item)
        for item in (items if isinstance(items, list) else [items])
    ]
    return all(fits for fits, _ in results), tuple(item for _, item in results)


def _is_decimal(hint: Any, item: Any) -> bool:
    return hint is int and isinstance(item, str) and item.isdecimal()


def _words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is collections.abc.Sequence:
        return "a list of such values"
    if typing.get_origin(hint) is tuple:
        items = "whole numbers" if typing.get_args(hint)[0] is int else "names"
        return f"{items} with commas between them"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words.get(hint, str(hint))
