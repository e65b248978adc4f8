"""Verbs that only look: nothing is trained."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedjax_sim.cli.run import experiment, say
from fedjax_sim.core.errors import fail, suggest
from fedjax_sim.experiments.config import registries
from fedjax_sim.experiments.config.fields import Family, fields_of, summary
from fedjax_sim.experiments.config.model import MODEL, PARTITION, parts_of


def check(asked: argparse.Namespace) -> None:
    """``check CONFIG [key=value ...]``."""
    from fedjax_sim.experiments.estimate import estimate, lines

    ready = experiment(asked.config, asked.overrides)
    table = Table(show_header=False)
    for name, text in lines(ready, estimate(ready)):
        table.add_row(name, text)
    console = Console()
    say(console, f"{asked.config} is valid")
    console.print(table)


def list_known(asked: argparse.Namespace) -> None:
    """``list [KIND]``."""
    console, known = Console(), kinds()
    for kind in [asked.kind] if asked.kind else known:
        table = Table(show_header=False, box=None, padding=(0, 2))
        for name, entry in known[kind].items():
            table.add_row(Text(name, style="bold"), Text(_says(entry)))
        console.print(kind, style="bold underline", highlight=False)
        console.print(table)
        console.print()


def describe(asked: argparse.Namespace) -> None:
    """``describe NAME``: everything of that name."""
    found = [
        (kind, registry[asked.name]) for kind, registry in kinds().items() if asked.name in registry
    ]
    if not found:
        fail(
            "nothing is registered under this name",
            got=repr(asked.name),
            fix=suggest(asked.name, {n for r in kinds().values() for n in r}),
        )
    console = Console()
    for kind, entry in found:
        console.print(f"{kind[:-1]} {asked.name}", style="bold", highlight=False)
        data = kind == "datasets"
        for text in _data_card(asked.name, entry) if data else _card(entry):
            say(console, f"{text}\n")
        settings = None if data else _settings(kind, getattr(entry, "factory", entry))
        if settings is not None and settings.row_count:
            console.print(settings)
        console.print()


def kinds() -> dict[str, dict[str, Any]]:
    """All registries by the plural that `list` takes; wrappers stand among the samplers, where a file names them."""
    from fedjax_sim.data import CATALOGUE

    known = registries()
    return {
        "algorithms": known.algorithms,
        "aggregators": known.aggregators,
        "tasks": known.tasks,
        "partitions": known.partitions,
        "models": known.models,
        "samplers": {**known.samplers, **known.wrappers},
        "optimizers": known.optimizers,
        "schedules": known.schedules,
        "datasets": CATALOGUE,
    }


def print_schema(asked: argparse.Namespace) -> None:
    """``schema [--out FILE]``."""
    from fedjax_sim.experiments.config import schema_text

    if asked.out is None:
        print(schema_text(), end="")
    else:
        Path(asked.out).write_text(schema_text(), encoding="utf-8")
        say(Console(), f"written to {asked.out}")


def print_versions(asked: argparse.Namespace) -> None:
    """``--version``."""
    from fedjax_sim.persistence.checkpoint import versions

    for name, version in versions().items():
        print(f"{name:18} {version}")


def _says(entry: Any) -> str:
    """A line about something registered."""
    return getattr(entry, "says", "") or summary(getattr(entry, "factory", entry)).replace(
        "``", "`"
    )


def _card(entry: Any) -> list[str]:
    return [
        text
        for text in (
            getattr(entry, "card", ""),
            inspect.getdoc(getattr(entry, "factory", entry)) or "",
        )
        if text
    ]


def _data_card(name: str, entry: Any) -> list[str]:
    """How a data set of TFDS is read, and made."""
    from fedjax_sim.data.tfds.catalogue import command

    deal = "" if entry.client else ", partition='dirichlet', clients=100"
    clients = f"clients by {entry.client}" if entry.client else "without clients of its own"
    features = f"x from {entry.x if isinstance(entry.x, str) else ', '.join(entry.x)}, y from {entry.y}, {clients}"
    return [
        entry.says,
        features,
        f"read: fedjax_sim.data.tfds({name!r}{deal})",
        f"prepare, once: {command(name)}",
    ]


def _settings(kind: str, factory: Any) -> Table:
    """What a file can set; the rest is wired by the program."""
    family = {"models": MODEL, "partitions": PARTITION}.get(kind, Family("", ""))
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for heading in ("setting", "type", "default"):
        table.add_column(heading)
    written, fields = (
        inspect.signature(factory).parameters,
        fields_of(factory, parts_of(registries()), family.skip, family.wired),
    )
    for name in fields:
        hint, default = written[name].annotation, written[name].default
        words = "required" if default is inspect.Parameter.empty else repr(default)
        table.add_row(
            name,
            Text(hint if isinstance(hint, str) else getattr(hint, "__name__", str(hint))),
            Text(words),
        )
    return table
