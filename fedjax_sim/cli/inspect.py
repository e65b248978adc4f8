"""Verbs that show something and train nothing: check, list, describe, schema, the versions."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedjax_sim.cli.run import experiment, say
from fedjax_sim.core import registry
from fedjax_sim.core.errors import fail, suggest
from fedjax_sim.core.registry import Entry, Kind
from fedjax_sim.experiments.config import entries_by_kind
from fedjax_sim.experiments.config.fields import summary
from fedjax_sim.experiments.config.reference import Section, entry_keys, sections
from fedjax_sim.experiments.plugins import load_plugins


def check(args: argparse.Namespace) -> None:
    """``check CONFIG [key=value ...]``."""
    from fedjax_sim.experiments.estimate import estimate, lines

    ready = experiment(args.config, args.overrides, args)
    table = Table(show_header=False)
    for name, text in lines(ready, estimate(ready)):
        table.add_row(name, text)
    console = Console()
    say(console, f"{args.config} is valid")
    console.print(table)


def list_entries(args: argparse.Namespace) -> None:
    """``list [KIND]``."""
    load_plugins(args.plugin)
    entries = entries_by_kind()
    console = Console()
    for kind in _chosen_kinds(args.kind):
        console.print(kind.plural, style="bold underline", highlight=False)
        console.print(_summaries(entries[kind.name]))
        console.print()


def describe(args: argparse.Namespace) -> None:
    """``describe NAME``: every entry, and every section of a configuration file, of that name."""
    load_plugins(args.plugin)
    entries = entries_by_kind()
    found = [each[args.name] for each in entries.values() if args.name in each]
    tables = {name: table for name, table in sections(entries).items() if name}
    section = tables.get(args.name)
    if not found and section is None:
        known = {name for each in (*entries.values(), tables) for name in each}
        fail(
            "nothing is registered under this name",
            got=repr(args.name),
            fix=suggest(args.name, known),
        )
    console = Console()
    if section is not None:
        _describe_section(console, section)
    for entry in found:
        _describe_entry(console, entry, entries)


def print_schema(args: argparse.Namespace) -> None:
    """``schema [--out FILE]``."""
    from fedjax_sim.experiments.config import schema_text

    load_plugins(args.plugin)
    if args.out is None:
        print(schema_text(), end="")
    else:
        Path(args.out).write_text(schema_text(), encoding="utf-8")
        say(Console(), f"written to {args.out}")


def print_versions(args: argparse.Namespace) -> None:
    """``--version``."""
    from fedjax_sim.persistence.checkpoint import versions

    for name, version in versions().items():
        print(f"{name:18} {version}")


def _chosen_kinds(plural: str | None) -> list[Kind]:
    kinds = {kind.plural: kind for kind in registry.kinds().values()}
    if plural is None:
        return list(kinds.values())
    if plural not in kinds:
        fail("unknown kind", got=repr(plural), fix=suggest(plural, kinds))
    return [kinds[plural]]


def _summaries(entries: Mapping[str, Entry]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, entry in entries.items():
        table.add_row(Text(name, style="bold"), Text(line_of(entry)))
    return table


def line_of(entry: Entry) -> str:
    """One line about an entry: the first paragraph of its factory's docstring, or the first line of
    its card.
    """
    is_factory = registry.kind(entry.kind).is_factory
    text = summary(entry.factory) if is_factory else entry.card.partition("\n")[0]
    return text.replace("``", "`")


def _describe_section(console: Console, section: Section) -> None:
    console.print(Text(f"section [{section.name}]", style="bold"))
    say(console, f"{section.meaning}\n")
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for heading in ("key", "type", "default", "meaning"):
        table.add_column(heading)
    for key in section.keys:
        table.add_row(*map(Text, key))
    console.print(table)
    if section.entries:
        say(console, f"\n{section.keys[0].name} is one of: {', '.join(section.entries)}")
    console.print()


def _describe_entry(console: Console, entry: Entry, entries: Mapping[str, Any]) -> None:
    kind = registry.kind(entry.kind)
    console.print(f"{kind.name} {entry.name}", style="bold", highlight=False)
    docstring = inspect.getdoc(entry.factory) if kind.is_factory else None
    for text in (entry.card, docstring):
        if text:
            say(console, f"{text}\n")
    settings = _settings(entry, entries) if kind.is_factory else None
    if settings is not None and settings.row_count:
        console.print(settings)
    console.print()


def _settings(entry: Entry, entries: Mapping[str, Any]) -> Table:
    """What a file can set; the program passes the rest."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for heading in ("setting", "type", "default"):
        table.add_column(heading)
    for key in entry_keys(entry, entries):
        table.add_row(Text(key.name), Text(key.type), Text(key.default))
    return table
