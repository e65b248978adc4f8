"""From pydantic's errors to sentences: ``file: key: what: got ...; do``, with the nearest known
key.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple, Union

from pydantic import BaseModel, ValidationError

from fedjax_sim.core.errors import sentence, shorten, suggest
from fedjax_sim.experiments.config.fields import NONE, Settings, tag_of
from fedjax_sim.experiments.config.renamed import new_entry, new_key
from fedjax_sim.experiments.config.toml import Document, located

MOST = 100
"""Errors that are explained, at most."""


class Place(NamedTuple):
    """A place in a file."""

    key: str
    """Dotted."""
    hint: Any
    """What may stand there; ``None`` for an unknown key."""
    raw: Any
    """What stands there."""
    table: type[BaseModel] | None
    """The table around it."""
    default: Any = None


def problems(error: ValidationError, model: type[BaseModel], document: Document) -> list[str]:
    """One line for each place with an error, in the order of the file."""
    known = list(dotted(model, document.tables))
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False)[:MOST]:
        place = locate(model, document.tables, item["loc"])
        if item["type"] in _TAGS and isinstance(
            place.raw, dict
        ):  # pydantic reports a wrong tag at its table
            place = place._replace(key=f"{place.key}.{_tag_key(place)}")
        lines.setdefault(
            place.key, line(document, place.key, _explain(item, place, document, known))
        )
    return list(lines.values())


def line(document: Document, key: str, text: str) -> str:
    """``origin: key: text``."""
    return located(document.origin(key), key, text)


# ------------------------------------------------------------------------------------------ walking


def members(hint: Any) -> list[Any]:
    """The alternatives of a type, annotations and ``None`` taken off."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return members(typing.get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return [m for arg in typing.get_args(hint) for m in members(arg)]
    return [] if hint is type(None) else [hint]


def tables(hint: Any) -> list[type[BaseModel]]:
    """The tables among the alternatives of a type, also as elements of a list."""
    found = []
    for member in members(hint):
        if typing.get_origin(member) is list:
            found += tables(typing.get_args(member)[0])
        elif isinstance(member, type) and issubclass(member, BaseModel):
            found.append(member)
    return found


def chosen(hint: Any, raw: Any) -> type[BaseModel] | None:
    """The table that a raw value chooses by its tag."""
    options = tables(hint)
    picked = [
        t
        for t in options
        if tag_of(t) != ("", "")
        and tag_of(t)[1] == (raw.get(tag_of(t)[0]) if isinstance(raw, dict) else raw)
    ]
    return picked[0] if picked else options[0] if len(options) == 1 else None


def locate(model: type[BaseModel], raw: Any, loc: Iterable[int | str]) -> Place:
    """Follows pydantic's path, which names tags and list elements that a file does not write."""
    place = Place("", model, raw, None)
    for step in loc:
        table = chosen(place.hint, place.raw)
        if isinstance(step, int):
            if isinstance(place.raw, list):
                place = place._replace(
                    key=f"{place.key}.{step}", raw=place.raw[step], hint=_element(place.hint)
                )
        elif table is not None and step in table.model_fields:
            place = _inside(place, table, step)
        elif (
            table is not None
            and step not in (tag_of(table)[1], table.__name__)
            and isinstance(place.raw, dict)
        ):
            place = Place(_join(place.key, str(step)), None, place.raw.get(str(step)), table)
    return place


def _inside(place: Place, table: type[BaseModel], name: str) -> Place:
    """A field of a table; the table may be written as its first setting alone, or as its name."""
    field = table.model_fields[name]
    raw = {} if place.raw == tag_of(table)[1] else place.raw
    if not isinstance(raw, dict):
        return Place(place.key, field.annotation, raw, table, field.default)
    key = _join(place.key, name)
    return Place(key, field.annotation, raw.get(name), table, field.default)


def _element(hint: Any) -> Any:
    """The type of a list's elements."""
    inner = [typing.get_args(m)[0] for m in members(hint) if typing.get_origin(m) in (list, tuple)]
    return inner[0] if inner else hint


def _join(key: str, step: str) -> str:
    return f"{key}.{step}" if key else step


def dotted(model: type[BaseModel], raw: Any, prefix: str = "") -> Iterable[str]:
    """All dotted keys of the variants that the tables choose."""
    for name, field in model.model_fields.items():
        key = _join(prefix, name)
        value = raw.get(name) if isinstance(raw, dict) else None
        yield key
        elements = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, element in elements:
            table = chosen(field.annotation, element)
            if table is not None:
                yield from dotted(table, element, key if index is None else f"{key}.{index}")


# -------------------------------------------------------------------------------------------- words


def _explain(item: Any, place: Place, document: Document, known: list[str]) -> str:
    kind = item["type"]
    if kind == "extra_forbidden":
        return _unknown(place, document, known)
    if kind in _TAGS or (kind == "missing" and place.key.split(".")[-1] in ("name", "kind")):
        return _tag(place)
    if kind == "missing":
        return sentence("missing", got="nothing", fix=f"add {_recipe(place)}")
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if kind == "finite_number":
        return sentence("must be a finite number", got=show(place.raw), fix=_correction(place))
    if kind in _LIMITS:
        limit = next(iter(item["ctx"].values()))
        return sentence(
            f"must be {_LIMITS[kind]} {limit}",
            got=show(place.raw),
            fix=f"give it a value such as {_example(place)}",
        )
    return sentence(f"must be {describe(place.hint)}", got=show(place.raw), fix=_correction(place))


_TAGS = ("union_tag_invalid", "union_tag_not_found")
_LIMITS = {
    "greater_than_equal": "at least",
    "greater_than": "above",
    "less_than_equal": "at most",
    "less_than": "below",
}


def _unknown(place: Place, document: Document, known: list[str]) -> str:
    renamed = new_key(place.key)
    got = show(place.raw)
    if renamed is not None:
        return sentence("this key has a new name", got=got, fix=f"write {renamed} instead")
    tag = tag_of(place.table)[1] if place.table else ""
    other = _written_for_another(place, document)
    if other is not None:
        what, fix = other
        return sentence(what, got=got, fix=fix)
    what = f"unknown key of {tag!r}" if tag else "unknown key"
    return sentence(what, got=got, fix=_nearest_key(place, known))


def _written_for_another(place: Place, document: Document) -> tuple[str, str] | None:
    """What to say of a key that the file has for an entry which an override has replaced."""
    *path, name = place.key.split(".")
    key, tag = tag_of(place.table) if place.table else ("", "")
    before: Any = document.written
    for part in path:
        before = before.get(part, {}) if isinstance(before, dict) else {}
    if not isinstance(before, dict) or name not in before or not key:
        return None
    old = before.get(key)
    if old in (None, tag):
        return None
    section = ".".join(path)
    fix = f"remove it from the file, or replace the whole table: {section}={{{key}='{tag}'}}"
    return f"unknown key of {tag!r}, written for {old!r}", fix


def _nearest_key(place: Place, known: list[str]) -> str:
    """Suggests a similar key of the table, or the same key of another table near it."""
    section, _, name = place.key.rpartition(".")
    siblings = list(place.table.model_fields) if place.table else []
    near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    if near:
        return suggest(name, near)
    same = [key for key in known if key.rpartition(".")[2] == name]
    same.sort(key=lambda key: -_shared_depth(section, key.rpartition(".")[0]))
    return f"did you mean {same[0]!r}?" if same else suggest(name, siblings)


def _shared_depth(section: str, other: str) -> int:
    """How deep a section is that encloses another one; 0 if it does not."""
    return len(other) if section.startswith(other) else 0


def _tag(place: Place) -> str:
    """A missing or unknown ``name`` or ``kind``. Pydantic reports it at the table."""
    options = [tag_of(table)[1] for table in tables(place.hint)]
    key = _tag_key(place)
    tag = place.raw.get(key) if isinstance(place.raw, dict) else place.raw
    renamed = new_entry(place.key.removesuffix(f".{key}"), tag)
    if renamed is not None:
        fix = f'write {key} = "{renamed}" instead'
        return sentence("this name has changed", got=show(tag), fix=fix)
    if tag is None:
        fix = f"add {key}, one of: {', '.join(sorted(options))}"
        return sentence(f"missing {key}", got=show(tag), fix=fix)
    return sentence(f"unknown {key}", got=show(tag), fix=suggest(str(tag), options))


def _tag_key(place: Place) -> str:
    return next((tag_of(t)[0] for t in tables(place.hint)), "kind")


def describe(hint: Any) -> str:
    """A type in words."""
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    found = members(hint)
    words = [_describe_member(member) for member in found if not _is_table(member)]
    if any(map(_is_table, found)):
        words.append("a table")
    if type(None) in typing.get_args(inner):
        words.append(f"'{NONE}'")
    return " or ".join(words)


def _is_table(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, BaseModel)


_PLAIN = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text in quotation marks",
}


def _describe_member(member: Any) -> str:
    if member in _PLAIN:
        return _PLAIN[member]
    origin = typing.get_origin(member)
    args = typing.get_args(member)
    if origin is Literal:
        words = ", ".join(map(repr, args))
        return words if len(args) < 2 else f"one of {words}"
    if origin is list:
        return "a table or a list of tables"
    if origin is tuple:
        return f"a list such as [{_number(args[0])}, {_number(args[0])}]"
    return "something else"


def _number(kind: Any) -> str:
    return {int: "10", float: "0.1", bool: "true"}.get(kind, '"text"')


def _correction(place: Place) -> str:
    """What to write instead."""
    kinds = members(place.hint)
    is_number = any(kind in (int, float, bool) for kind in kinds)
    if isinstance(place.raw, str) and is_number and _reads_as_number(place.raw):
        return "remove the quotation marks"
    literals = [kind for kind in kinds if typing.get_origin(kind) is Literal]
    words = [str(word) for literal in literals for word in typing.get_args(literal)]
    if isinstance(place.raw, str) and len(words) > 1:
        return suggest(place.raw, words)
    return f"write {_recipe(place)}"


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("true", "false")
    return True


def _recipe(place: Place) -> str:
    options = tables(place.hint)
    name = place.key.split(".")[-1]
    if not options or float in members(place.hint):
        return _example(place) if name.isdigit() else f"{name} = {_example(place)}"
    key, tag = tag_of(options[0])
    inside = f'{key} = "{tag}"' if key else f"{next(iter(options[0].model_fields))} = ..."
    return (
        f"a table [{place.key}] with {inside}"
        if place.key.count(".") == 0
        else f"{name} = {{ {inside} }}"
    )


def _example(place: Place) -> str:
    if isinstance(place.default, int | float | str):
        return show(place.default, '"')
    kinds = members(place.hint)
    first = next(
        (typing.get_args(k)[0] if typing.get_origin(k) is Literal else k for k in kinds), str
    )
    if isinstance(first, str):
        return f'"{first}"'
    return (
        describe(first).removeprefix("a list such as ")
        if typing.get_origin(first) is tuple
        else _number(first)
    )


def show(value: Any, quote: str = "'") -> str:
    """A value as a file would write it, cut to a readable length."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nothing"
    return shorten(f"{quote}{value}{quote}" if isinstance(value, str) else str(value), 60)


def variant_tag(settings: Settings) -> str:
    """The name by which a table was chosen."""
    return tag_of(type(settings))[1]
