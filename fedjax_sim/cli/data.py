"""The verbs about data: prepare, describe and formats."""

from __future__ import annotations

import argparse
import inspect
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
from fedjax_sim.data import describe as population_statistics
from fedjax_sim.data.label_statistics import Spread, label_spread
from fedjax_sim.data.sources import REGISTRY
from fedjax_sim.data.sources import prepare as prepare_folder
from fedjax_sim.data.sources.options import keywords, read_pairs
from fedjax_sim.experiments.config.fields import arguments
from fedjax_sim.experiments.estimate import format_bytes

PARTS = {
    "train": "for training",
    "test": "for the clients' tests",
    "central": "for a global test set",
}
"""Description of each part of the examples, by its name in the card."""
QUANTILES = {"min": "smallest", "p10": "10 %", "median": "median", "p90": "90 %", "max": "largest"}
"""Description of each quantile of the clients' sizes."""


def prepare(args: argparse.Namespace) -> None:
    """``data prepare SOURCE [key=value ...] --out DIR``."""
    partition = args.partition or []
    options = ("clients", "min_size", "test_fraction", "global_test_fraction", "seed", "name")
    begin = time.perf_counter()
    folder = prepare_folder(
        args.source,
        args.out,
        form=args.format,
        options=read_pairs(args.overrides),
        partition=partition[0] if partition else None,
        partition_options=read_pairs(partition[1:]),
        **{name: getattr(args, name) for name in options},
    )
    card = read_card(folder)
    seconds = time.perf_counter() - begin
    console = Console()
    clients = f"{card['clients']:,} clients"
    size = f"{_total_size(card)} in {seconds:.1f} s"
    say(console, f"wrote {folder}: {clients}, {_example_counts(card)}; {size}")
    say(console, f"show it with: fedjax-sim data describe {folder} --out {folder}-figures")


def describe(args: argparse.Namespace) -> None:
    """``data describe DIR [--out FOLDER] [--verify]``."""
    data = open_prepared(args.directory, verify=args.verify)
    card = read_card(args.directory)
    spread = label_spread(data.train, card["classes"]) if card["classes"] else None
    table = Table(show_header=False)
    for name, text in [*_card_rows(card), *_size_rows(data.train), *_label_rows(spread, card)]:
        table.add_row(name, Text(printable(text)))
    console = Console()
    console.print(table)
    if args.verify:
        say(console, "all files have the hashes that the card lists")
    if args.out is not None:
        for figure in _plot(data.train, spread, Path(args.out)):
            say(console, f"wrote {figure}")


def formats(args: argparse.Namespace) -> None:
    """``data formats``: the formats that ``data prepare`` reads, and the options of each."""
    console = Console()
    for name, reader in REGISTRY.items():
        title = Text(name, style="bold").append(f"  {reader.summary}", style="not bold")
        console.print(title, highlight=False)
        table = Table(show_header=False, box=None, padding=(0, 2))
        descriptions = arguments(reader.read)
        for key, parameter in keywords(reader.read).items():
            description = descriptions.get(key, "").replace("``", "`")
            table.add_row(f"  {key}{_default_text(parameter)}", Text(description))
        console.print(table)


def _default_text(parameter: inspect.Parameter) -> str:
    omitted = (parameter.empty, "", (), None)
    return "" if parameter.default in omitted else f"={parameter.default}"


def _example_counts(card: dict[str, Any]) -> str:
    train, *others = card["examples"].items()
    texts = [f"{train[1]:,} training examples"]
    texts += [f"{count:,} {part}" for part, count in others if count]
    return ", ".join(texts)


def _total_size(card: dict[str, Any]) -> str:
    return format_bytes(sum(file["bytes"] for file in card["files"].values()))


def _plot(data: Population, spread: Spread | None, folder: Path) -> list[Path]:
    from fedjax_sim.report.clients import plot_labels, plot_sizes

    figures = [plot_sizes(data.sizes, folder / "sizes.png")]
    if spread:
        figures.append(plot_labels(spread, folder / "labels.png"))
    return figures


def _card_rows(card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", card["name"]
    yield "source", card["source"]
    yield "clients", f"{card['clients']:,}{'' if card['named'] else ', without names'}"
    counts = {part: card["examples"].get(part) for part in PARTS}
    yield "examples", ", ".join(f"{n:,} {PARTS[part]}" for part, n in counts.items() if n)
    yield "an example", f"x {_form_text(card['x'])}, y {_form_text(card['y'])}"
    yield "size", _total_size(card)
    yield "content hash", card["content"][:16]


def _size_rows(data: Population) -> Iterator[tuple[str, str]]:
    sizes = population_statistics(data)["size"]
    quantiles = ", ".join(f"{sizes[key]:,.6g} ({text})" for key, text in QUANTILES.items())
    yield "examples per client", f"{quantiles}; mean {sizes['mean']:,.6g}"


def _label_rows(spread: Spread | None, card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if spread is None:
        is_text = card["y"] == {"tuple": []}
        yield (
            "labels",
            "none: a client's examples are the characters of a text"
            if is_text
            else "none: y is not one class per example",
        )
        return
    mean = f"{spread.classes:.3g} on average"
    yield "labels", f"{len(spread.counts)}, of which a client has {mean}"
    yield (
        "label entropy",
        f"{spread.entropy:.3f} per client on average, {spread.overall:.3f} of all clients (nats)",
    )


def _form_text(form: dict[str, Any]) -> str:
    """The shape and dtype of one example."""
    if "dtype" in form:
        return f"{form['dtype']}{form['shape'] or ''}"
    if "dict" in form:
        items = (f"{key}: {_form_text(inner)}" for key, inner in form["dict"].items())
        return "{" + ", ".join(items) + "}"
    items = form.get("tuple", form.get("list", ()))
    return "(" + ", ".join(map(_form_text, items)) + ")"
