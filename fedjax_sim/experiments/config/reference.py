"""The reference of configuration files: every section and key with type, default and meaning, from
the model that checks them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedjax_sim.core import registry
from fedjax_sim.experiments.config.fields import tag_of
from fedjax_sim.experiments.config.messages import describe, members, show, tables
from fedjax_sim.experiments.config.model import Entries, entries_by_kind, run_model


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


def section_names() -> list[str]:
    """Names of the tables that a file may have."""
    return [name for name in sections() if name]


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
    meaning = field.description or (variants[0].__doc__ or "").strip()
    if len(variants) == 1 and tag_of(variants[0]) == ("", ""):
        return Section(name, meaning, _keys(variants[0].model_fields), {})
    key = tag_of(variants[0])[0]
    shared = set.intersection(*(set(variant.model_fields) for variant in variants)) - {key}
    common = {
        each: variants[0].model_fields[each] for each in variants[0].model_fields if each in shared
    }
    choice = Key(key, "the name of an entry", "required", field.description or "")
    own = {tag_of(variant)[1]: _own_keys(variant, {*shared, key}) for variant in variants}
    return Section(name, meaning, (choice, *_keys(common)), own)


def _own_keys(variant: type[BaseModel], without: set[str]) -> tuple[Key, ...]:
    fields = {name: field for name, field in variant.model_fields.items() if name not in without}
    return _keys(fields)


def _keys(fields: dict[str, FieldInfo]) -> tuple[Key, ...]:
    return tuple(
        Key(name, _type(field.annotation), _default(field), field.description or "")
        for name, field in fields.items()
    )


def _type(hint: Any) -> str:
    """A type in words; of a table, what kind of entry it chooses."""
    chosen = {getattr(variant, "kind_name", "") or "settings" for variant in tables(hint)}
    words = [describe(member) for member in members(hint) if not tables(member)]
    return " or ".join([*dict.fromkeys(words), *(f"a table of {name}" for name in sorted(chosen))])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return show(field.get_default(call_default_factory=False), '"')


def _section_lines(section: Section) -> Iterator[str]:
    yield f"## `[{section.name}]`" if section.name else "## Top of the file"
    yield ""
    yield f"{section.meaning[:1].upper()}{section.meaning[1:]}."
    yield ""
    yield from _table_lines(section.keys)
    for name, keys in section.entries.items():
        yield f"### `{section.name}` `{name}`"
        yield ""
        yield from _table_lines(keys)


def _part_lines(entries: Entries) -> Iterator[str]:
    """Tables that stand for one setting: optimizers, schedules, aggregators, partitions."""
    from fedjax_sim.experiments.config.fields import variant
    from fedjax_sim.experiments.config.model import parts_of

    parts = parts_of(entries)
    for kind in registry.kinds().values():
        if not kind.stands_for:
            continue
        yield f"## {kind.plural.capitalize()}"
        yield ""
        yield f"{kind.meaning[:1].upper()}{kind.meaning[1:]}. Written as a table with `{kind.key}`."
        yield ""
        for name, entry in entries[kind.name].items():
            made = variant(kind, name, entry, parts, {})
            yield f"### {kind.name} `{name}`"
            yield ""
            yield (made.__doc__ or "").replace("``", "`")
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
        cells = (f"`{key.name}`", key.type, f"`{key.default}`", key.meaning.replace("``", "`"))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""
