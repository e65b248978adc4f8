"""The card of a prepared data set: ``card.json``, which states what the folder holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMAT = "fedjax_sim prepared data"
"""The card's entry ``format``."""
VERSION = 1
"""The card's entry ``version``."""
CARD = "card.json"
"""Name of the card's file."""
REQUIRED = ("clients", "named", "examples", "x", "y", "classes", "files", "content")
"""Entries that every card has."""

Card = dict[str, Any]


def content(card: Card) -> str:
    """Returns one hash over all examples, equal for equal data whatever the name and description.

    Args:
      card: has the entries ``x``, ``y`` and ``files``.
    """
    facts = {
        "x": card["x"],
        "y": card["y"],
        "files": {name: about["sha256"] for name, about in card["files"].items()},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def malformed(card: Card) -> list[str]:
    """Returns the entries whose values are not of the right form; readers rely on the others."""
    return [key for key, is_valid in _VALID.items() if key in card and not is_valid(card[key])]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


def _is_number_of_classes(value: Any) -> bool:
    return value is None or (_is_count(value) and value > 0)


def _is_form(value: Any) -> bool:
    """Whether a value can be a form, see :func:`fedjax_sim.data.prepared.writer.form`."""
    if not isinstance(value, dict):
        return False
    if "dtype" in value:
        shape = value.get("shape")
        whole = isinstance(shape, list) and all(map(_is_count, shape))
        return isinstance(value["dtype"], str) and whole
    if isinstance(value.get("dict"), dict):
        inner = list(value["dict"].values())
    else:
        inner = value.get("tuple", value.get("list"))
    return isinstance(inner, list) and all(map(_is_form, inner))


def _are_files(value: Any) -> bool:
    """Whether a value can be the files of a folder, each with its size and hash."""
    return isinstance(value, dict) and all(
        name == Path(name).name
        and isinstance(about, dict)
        and _is_count(about.get("bytes"))
        and isinstance(about.get("sha256"), str)
        for name, about in value.items()
    )


_VALID: dict[str, Callable[[Any], bool]] = {
    "name": _is_text,
    "source": _is_text,
    "clients": _is_count,
    "examples": _are_counts,
    "x": _is_form,
    "y": _is_form,
    "classes": _is_number_of_classes,
    "files": _are_files,
    "content": _is_text,
}
