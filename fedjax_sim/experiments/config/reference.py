"""The reference of configuration files: every section and key with type, default and meaning, from
the model that checks them.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedjax_sim.core import registry
from fedjax_sim.core.registry import Entry
from fedjax_sim.experiments.config.fields import NONE, fields_of, table, tag_of, variant
from fedjax_sim.experiments.config.messages import describe, members, show, tables
from fedjax_sim.experiments.config.model import Entries, entries_by_kind, parts_of, run_model


class Key(NamedTuple):
    """One key of a table.

    Attributes:
      name: as a file writes it.
      type: what may stand there, in words.
      default: as a file would write it; ``"required"`` if there is none.
      meaning: one line.
    """

    name: str
    type: str
    default: str
    meaning: str


class Section(NamedTuple):
    """One table of a file.

    Attributes:
      name: of the table; empty for the keys at the top of the file.
      meaning: one line.
      keys: those that every such table has.
      entries: for a table that chooses a registered entry, the entry's name and its own keys.
    """

    name: str
    meaning: str
    keys: tuple[Key, ...]
    entries: dict[str, tuple[Key, ...]]


def sections(entries: Entries | None = None) -> dict[str, Section]:
    """All sections by name, in the order of a file; the keys at the top of the file have the name
    ``""``.

    Args:
      entries: what can be named; everything that is registered by default.

    >>> from fedjax_sim.experiments.config.reference import sections
    >>> [key.name for key in sections()["stop"].keys]
    ['metric', 'at_least', 'at_most']
    """
    run = run_model(entries or entries_by_kind())
    plain = {
        name: field for name, field in run.model_fields.items() if not tables(field.annotation)
    }
    found = {"": Section("", "at the top of the file", _keys(plain), {})}
    for name, field in run.model_fields.items():
        if name not in plain:
            found[name] = _section(name, field)
    return found


def entry_keys(entry: Entry, entries: Entries) -> tuple[Key, ...]:
    """The settings of one entry that a file can set.

    Args:
      entry: of a kind whose entries are factories.
      entries: what can be named.
    """
    kind = registry.kind(entry.kind)
    fields = fields_of(entry.factory, parts_of(entries), kind.provided, kind.wired)
    return _keys(table("settings", entry.factory, fields).model_fields)


def reference_text(entries: Entries | None = None) -> str:
    """The reference as a Markdown page, the same for equal entries."""
    lines = [
        "# Configuration reference",
        "",
        "Made from the same model that checks the files, by `make generated`. "
        "`fedjax-sim describe SECTION` prints one section, `fedjax-sim describe NAME` one entry.",
        "",
    ]
    for section in sections(entries).values():
        lines += _section_lines(section)
    lines += _part_lines(entries or entries_by_kind())
    return "\n".join(lines) + "\n"


def _section(name: str, field: FieldInfo) -> Section:
    variants = tables(field.annotation)
    meaning = field.description or variants[0].__doc__ or ""
    if len(variants) == 1 and tag_of(variants[0]) == ("", ""):
        return Section(name, meaning, _keys(variants[0].model_fields), {})
    key = tag_of(variants[0])[0]
    choice = Key(key, "the name of an entry", "required", meaning)
    common = _common_fields(variants, key)
    own = {tag_of(variant)[1]: _own_keys(variant, {*common, key}) for variant in variants}
    return Section(name, meaning, (choice, *_keys(common)), own)


def _common_fields(variants: list[type[BaseModel]], key: str) -> dict[str, FieldInfo]:
    """Fields that all variants have with the same type, default and meaning."""
    first, *others = (variant.model_fields for variant in variants)
    return {
        name: field
        for name, field in first.items()
        if name != key and all(name in other and _same(field, other[name]) for other in others)
    }


def _same(field: FieldInfo, other: FieldInfo) -> bool:
    facts = (field.annotation, field.default, field.description)
    return facts == (other.annotation, other.default, other.description)


def _own_keys(variant: type[BaseModel], without: set[str]) -> tuple[Key, ...]:
    fields = {name: field for name, field in variant.model_fields.items() if name not in without}
    return _keys(fields)


def _keys(fields: dict[str, FieldInfo]) -> tuple[Key, ...]:
    return tuple(
        Key(name, _type(field.annotation), _default(field), _plain(field.description or ""))
        for name, field in fields.items()
    )


def _type(hint: Any) -> str:
    """A type in words; of a table, what kind of entry it chooses."""
    chosen = {getattr(variant, "kind_name", "") or "settings" for variant in tables(hint)}
    words = [describe(member) for member in members(hint) if not tables(member)]
    words += [f"a table of {name}" for name in sorted(chosen)]
    if type(None) in typing.get_args(hint):
        words.append(f"'{NONE}'")
    return " or ".join(dict.fromkeys(words))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=False)
    return NONE if default is None else show(default, '"')


def _plain(text: str) -> str:
    """A docstring's text for Markdown: no roles, single backticks, no full stop at the end."""
    without_roles = re.sub(r":\w+:(?=`)", "", text)
    return without_roles.replace("``", "`").strip().rstrip(".")


def _sentence(text: str) -> str:
    plain = _plain(" ".join(text.split()))
    return f"{plain[:1].upper()}{plain[1:]}."


def _section_lines(section: Section) -> Iterator[str]:
    yield f"## `[{section.name}]`" if section.name else "## Top of the file"
    yield ""
    yield _sentence(section.meaning)
    yield ""
    yield from _table_lines(section.keys)
    for name, keys in section.entries.items():
        yield f"### `{section.name}` `{name}`"
        yield ""
        yield from _table_lines(keys)


def _part_lines(entries: Entries) -> Iterator[str]:
    """Tables that stand for one setting: optimizers, schedules, aggregators, partitions."""
    parts = parts_of(entries)
    for kind in registry.kinds().values():
        if not kind.stands_for:
            continue
        yield f"## {kind.plural.capitalize()}"
        yield ""
        yield f"{_sentence(kind.meaning)} Written as a table with `{kind.key}`."
        yield ""
        for name, entry in entries[kind.name].items():
            made = variant(kind, name, entry, parts, {})
            yield f"### {kind.name} `{name}`"
            yield ""
            yield _sentence(made.__doc__ or "")
            yield ""
            yield from _table_lines(_own_keys(made, {kind.key}))


def _table_lines(keys: tuple[Key, ...]) -> Iterator[str]:
    if not keys:
        yield "No settings of its own."
        yield ""
        return
    yield "| key | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for key in keys:
        cells = (f"`{key.name}`", key.type, f"`{key.default}`", key.meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""
