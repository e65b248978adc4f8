"""Verbs about data: what makes a prepared data set, and what looks at one."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedjax_sim.cli.run import say
from fedjax_sim.core.errors import printable
from fedjax_sim.data import Population, open_prepared, read_card
from fedjax_sim.data import describe as facts
from fedjax_sim.data.label_statistics import Spread, label_spread
from fedjax_sim.data.sources import REGISTRY
from fedjax_sim.data.sources import prepare as write
from fedjax_sim.data.sources.options import keywords, read_pairs
from fedjax_sim.experiments.config.fields import arguments
from fedjax_sim.experiments.estimate import size


def prepare(asked: argparse.Namespace) -> None:
    """``data prepare SOURCE [key=value ...] --out DIR``."""
    words = asked.partition or []
    given = ("clients", "min_size", "test_fraction", "global_test_fraction", "seed", "name")
    begun = time.perf_counter()
    folder = write(
        asked.source,
        asked.out,
        form=asked.format,
        options=read_pairs(asked.overrides),
        partition=words[0] if words else None,
        partition_options=read_pairs(words[1:]),
        **{key: getattr(asked, key) for key in given},
    )
    card, seconds = read_card(folder), time.perf_counter() - begun
    console, (train, *others) = Console(), card["examples"].items()
    rest = "".join(f", {count:,} {part}" for part, count in others if count)
    held = size(sum(about["bytes"] for about in card["files"].values()))
    say(
        console,
        f"wrote {folder}: {card['clients']:,} clients, {train[1]:,} training examples{rest}; {held} in {seconds:.1f} s",
    )
    say(console, f"look at it with: fedjax-sim data describe {folder} --out {folder}-figures")


def describe(asked: argparse.Namespace) -> None:
    """``data describe DIR [--out FOLDER] [--verify]``."""
    data, card = open_prepared(asked.directory, verify=asked.verify), read_card(asked.directory)
    spread = label_spread(data.train, card["classes"]) if card["classes"] else None
    table = Table(show_header=False)
    for name, text in [*_facts(card), *_sizes(data.train), *_skew(spread, card)]:
        table.add_row(name, Text(printable(text)))
    console = Console()
    console.print(table)
    if asked.verify:
        say(console, "all files have the hashes that the card says")
    if asked.out is not None:
        from fedjax_sim.report.clients import plot_labels, plot_sizes

        figures = [plot_sizes(data.train.sizes, Path(asked.out) / "sizes.png")]
        figures += [plot_labels(spread, Path(asked.out) / "labels.png")] if spread else []
        for figure in figures:
            say(console, f"drew {figure}")


def formats(asked: argparse.Namespace) -> None:
    """``data formats``: what ``data prepare`` reads, and the options of each."""
    console = Console()
    for name, reader in REGISTRY.items():
        console.print(
            Text(name, style="bold").append(f"  {reader.says}", style="not bold"), highlight=False
        )
        table, said = Table(show_header=False, box=None, padding=(0, 2)), arguments(reader.read)
        for key, parameter in keywords(reader.read).items():
            default = (
                ""
                if parameter.default in (parameter.empty, "", (), None)
                else f"={parameter.default}"
            )
            table.add_row(f"  {key}{default}", Text(said.get(key, "").replace("``", "`")))
        console.print(table)


def _facts(card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the card says."""
    yield "name", card["name"]
    yield "source", card["source"]
    yield "clients", f"{card['clients']:,}{'' if card['named'] else ', without names'}"
    counts = [
        f"{count:,} {words}"
        for part, words in PARTS.items()
        if (count := card["examples"].get(part))
    ]
    yield "examples", ", ".join(counts)
    yield "an example", f"x {_words(card['x'])}, y {_words(card['y'])}"
    yield "size", size(sum(about["bytes"] for about in card["files"].values()))
    yield "content hash", card["content"][:16]


PARTS = {
    "train": "for training",
    "test": "for the clients' tests",
    "central": "for a global test set",
}


def _sizes(data: Population) -> Iterator[tuple[str, str]]:
    sizes = facts(data)["size"]
    quantiles = ", ".join(f"{sizes[key]:,.6g} ({word})" for key, word in QUANTILES.items())
    yield "examples of a client", f"{quantiles}; mean {sizes['mean']:,.6g}"


QUANTILES = {"min": "smallest", "p10": "10 %", "median": "median", "p90": "90 %", "max": "largest"}


def _skew(spread: Spread | None, card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if spread is None:
        text = card["y"] == {"tuple": []}
        yield (
            "labels",
            "none: a client's examples are the characters of a text"
            if text
            else "not one of few for each example",
        )
        return
    yield "labels", f"{len(spread.counts)}, of which a client has {spread.classes:.3g} on average"
    yield (
        "label entropy",
        f"{spread.entropy:.3f} of a client on average, {spread.overall:.3f} of all together (nats)",
    )


def _words(form: dict[str, Any]) -> str:
    """Shape and type of one example."""
    if "dtype" in form:
        return f"{form['dtype']}{form['shape'] or ''}"
    if "dict" in form:
        return (
            "{" + ", ".join(f"{key}: {_words(inner)}" for key, inner in form["dict"].items()) + "}"
        )
    return "(" + ", ".join(map(_words, form.get("tuple", form.get("list", ())))) + ")"
