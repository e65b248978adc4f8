"""``fedjax-sim demo``: compares two algorithms on the same data, clients and seed."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

import fedjax_sim
from fedjax_sim.cli.run import experiment, print_summary, run_interruptibly, say
from fedjax_sim.core.errors import fail
from fedjax_sim.experiments.config.messages import variant_tag
from fedjax_sim.experiments.records import ROWS
from fedjax_sim.experiments.run import new_folder
from fedjax_sim.runtime.signals import exit_status

PAIR = ("digits_fedavg", "digits_scaffold")
"""Configuration files that differ only in the algorithm."""


def shipped(name: str) -> Path:
    """Returns the path of a configuration file of the project.

    The file lies in the installed package, or beside it in a checkout.

    Args:
      name: the name of the file without ``.toml``.

    Raises:
      FedError: if there is no such file.

    Example:

        >>> from fedjax_sim.cli.demo import shipped
        >>> shipped("digits_fedavg").name
        'digits_fedavg.toml'
    """
    package = Path(fedjax_sim.__file__).parent
    for folder in (package / "configs", package.parent / "configs"):
        path = folder / f"{name}.toml"
        if path.is_file():
            return path
    fail(
        "a configuration file of the project is missing",
        got=f"{name}.toml",
        fix="install fedjax-sim again",
    )


def demo(args: argparse.Namespace) -> int:
    """``demo [--out DIR]``: trains, compares and plots both algorithms. Returns the exit status."""
    from fedjax_sim.report import comparison, plot_runs
    from fedjax_sim.simulation.history import from_jsonl

    experiments = [experiment(shipped(name), args.overrides, args) for name in PAIR]
    console = Console()
    top = Path(args.out) if args.out else next_folder(Path("runs"))
    folders = {}
    for ready in experiments:
        rounds = ready.config.run.rounds
        label = variant_tag(ready.config.run.algorithm)
        folders[label] = new_folder(ready.config, top / label)
        say(console, f"{label}: {ready.task.data.train.clients} clients, {rounds} rounds")
        summary = run_interruptibly(ready, folders[label])
        if exit_status(summary["stopped"]):
            return print_summary(summary, folders[label], rounds)
    histories = {label: from_jsonl(folder / ROWS) for label, folder in folders.items()}
    console.print(comparison(histories))
    figure = plot_runs(histories, top / "comparison.png")
    for label, folder in folders.items():
        say(console, f"{label:12} {folder}")
    say(console, f"{'plot':12} {figure}")
    return 0


def next_folder(root: Path) -> Path:
    """Returns the first of ``root/demo-001``, ``root/demo-002``, ... that does not exist.

    Args:
      root: the folder of all runs.
    """
    paths = (root / f"demo-{number:03}" for number in range(1, 10**6))
    return next(path for path in paths if not path.exists())
