"""``fedjax-sim demo``: two algorithms on the same data, clients and seed, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

import fedjax_sim
from fedjax_sim.cli.run import carried_out, experiment, say, tell
from fedjax_sim.core.errors import fail
from fedjax_sim.experiments.config.messages import variant_tag
from fedjax_sim.experiments.records import ROWS
from fedjax_sim.experiments.run import new_folder
from fedjax_sim.runtime.signals import exit_status

PAIR = ("digits_fedavg", "digits_scaffold")
"""Configuration files that differ in the algorithm alone."""


def shipped(name: str) -> Path:
    """A configuration file of the project: in the installed package, or beside it in a checkout.

    Raises:
      FedError: where there is none of that name.
    """
    package = Path(fedjax_sim.__file__).parent
    for folder in (package / "configs", package.parent / "configs"):
        if (path := folder / f"{name}.toml").is_file():
            return path
    fail(
        "a configuration file of the project is missing",
        got=f"{name}.toml",
        fix="install fedjax-sim again",
    )


def demo(asked: argparse.Namespace) -> int:
    """``demo [--out DIR]``: trains, compares, draws, and says where everything is. Returns the exit status."""
    from fedjax_sim.report import comparison, plot_runs
    from fedjax_sim.simulation.history import from_jsonl

    ready = [experiment(shipped(name), asked.overrides) for name in PAIR]
    console, top = Console(), Path(asked.out) if asked.out else next_folder(Path("runs"))
    folders = {}
    for each in ready:
        label = variant_tag(each.config.run.algorithm)
        folders[label] = new_folder(each.config, top / label)
        say(
            console,
            f"{label}: {each.task.data.train.clients} clients, {each.config.run.rounds} rounds",
        )
        summary = carried_out(each, folders[label])
        if exit_status(summary["stopped"]):
            return tell(summary, folders[label], each.config.run.rounds)
    histories = {label: from_jsonl(folder / ROWS) for label, folder in folders.items()}
    console.print(comparison(histories))
    figure = plot_runs(histories, top / "comparison.png")
    for label, folder in folders.items():
        say(console, f"{label:12} {folder}")
    say(console, f"{'plot':12} {figure}")
    return 0


def next_folder(root: Path) -> Path:
    """``root/demo-<number>``, the first that is free."""
    return next(
        path for number in range(1, 10**6) if not (path := root / f"demo-{number:03}").exists()
    )
