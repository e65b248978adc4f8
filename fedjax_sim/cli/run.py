"""The verbs that train or evaluate: run, resume and evaluate."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedjax_sim.core import files
from fedjax_sim.core.errors import printable
from fedjax_sim.experiments.build import build
from fedjax_sim.experiments.config import entries_by_kind, read, resolve
from fedjax_sim.experiments.config.toml import Document
from fedjax_sim.experiments.experiment import Experiment
from fedjax_sim.experiments.plugins import load_plugins, require_plugins
from fedjax_sim.experiments.records import RunFolder, Summary
from fedjax_sim.experiments.run import (
    evaluation,
    new_folder,
    open_checkpoints,
    restore,
    run_experiment,
)
from fedjax_sim.runtime.devices import cores, enable_compilation_cache, use_cores
from fedjax_sim.runtime.processes import exit_if_peer_lost, is_main_process, join
from fedjax_sim.runtime.signals import exit_status, second_signal

if TYPE_CHECKING:
    from fedjax_sim.simulation.callbacks import Callback

MAX_CPU_DEVICES = 1024
"""Devices that JAX can make of a CPU within a second."""

NO_OPTIONS = argparse.Namespace(plugin=())
"""A command line without options."""


def experiment(
    path: str | Path,
    overrides: Sequence[str],
    args: argparse.Namespace = NO_OPTIONS,
    stored: bool = False,
) -> Experiment:
    """Builds the experiment of a configuration file, on a JAX that is set up for it.

    Args:
      path: a TOML file.
      overrides: ``key=value`` settings of the command line.
      args: the parsed command line: ``plugin``, and for some verbs the options of several
        processes.
      stored: whether the file is in a run's folder, where an earlier version may have written it.

    Raises:
      FedError: if the configuration is not valid, or a plug-in that a stored run used is missing.
    """
    document = read(path, overrides, stored)
    processes = getattr(args, "processes", None) or 1
    use_cores(cpu_devices(document, processes))
    enable_compilation_cache()
    if _is_distributed(args):
        join(args.coordinator, args.processes, args.process_id)
    load_plugins(args.plugin)  # last: a plug-in may use JAX when it is imported
    if stored:
        require_plugins(Path(path).parent)
    return build(resolve(document, entries_by_kind()))


def experiment_of_run(
    folder: Path, overrides: Sequence[str], args: argparse.Namespace = NO_OPTIONS
) -> Experiment:
    """Builds the experiment of a run's folder, whose plug-ins must be loaded.

    Raises:
      FedError: if there is no run, or a plug-in that it used is missing.
    """
    path = RunFolder(folder).require_run().config_path
    return experiment(path, overrides, args, stored=True)


def _is_distributed(args: argparse.Namespace) -> bool:
    given = (getattr(args, name, None) for name in ("coordinator", "processes", "process_id"))
    return getattr(args, "distributed", False) or any(value is not None for value in given)


def cpu_devices(document: Document, processes: int = 1) -> int:
    """Returns the number of devices that JAX must make of the CPU.

    This is the number of cores, or ``engine.devices`` if that is larger. Of several processes each
    has its share of ``engine.devices``, by default 1: with several devices in each of several
    processes, collectives can block each other forever.

    Args:
      document: a configuration that is not validated yet; the engine rejects a wrong number later.
      processes: the number of processes of the run.
    """
    engine = document.tables.get("engine")
    devices = engine.get("devices") if isinstance(engine, dict) else None
    if not isinstance(devices, int) or devices > MAX_CPU_DEVICES:
        return cores() if processes == 1 else 1
    return max(cores(), devices) if processes == 1 else -(-devices // processes)


def run(args: argparse.Namespace) -> int:
    """``run CONFIG [key=value ...] [--out DIR] [--profile DIR]``. Returns the exit status."""
    from fedjax_sim.simulation.callbacks import profile

    ready = experiment(args.config, args.overrides, args)
    folder = new_folder(ready.config, args.out)
    callbacks = [profile(args.profile)] if args.profile else []
    summary = run_interruptibly(ready, folder, callbacks=callbacks)
    status = print_summary(summary, folder, ready.config.run.rounds)
    if args.profile:
        say(Console(), _profile_text(Path(args.profile)))
    return status


def resume(args: argparse.Namespace) -> int:
    """``resume RUN [key=value ...] [--rounds N]``. Returns the exit status."""
    folder = Path(args.run)
    rounds = [] if args.rounds is None else [f"rounds={args.rounds}"]
    ready = experiment_of_run(folder, [*args.overrides, *rounds], args)
    summary = run_interruptibly(ready, folder, resume=True)
    return print_summary(summary, folder, ready.config.run.rounds)


def run_interruptibly(
    ready: Experiment, folder: Path, resume: bool = False, callbacks: Iterable[Callback] = ()
) -> Summary:
    """Runs an experiment. A second Ctrl-C, and the loss of another process, end this process at
    once.

    Args:
      ready: the experiment.
      folder: the folder of the run.
      resume: whether to continue from the newest checkpoint in the folder.
      callbacks: called between rounds, besides those of the configuration.

    Returns:
      The contents of ``summary.json``.
    """
    command = f"fedjax-sim resume {folder}"

    def exit_now(signal_number: int) -> None:
        """Safe at any moment: files that are being written count only when they are complete."""
        show_cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""  # a progress bar hides it
        text = f"stopped at once; continue from the newest checkpoint with: {command}"
        os.write(2, f"{show_cursor}{text}\n".encode())
        os._exit(128 + signal_number)

    with (
        exit_if_peer_lost(lambda: f"start all processes again with: {command}"),
        second_signal(exit_now),
    ):
        return run_experiment(ready, folder, resume=resume, callbacks=callbacks)


def evaluate(args: argparse.Namespace) -> None:
    """``evaluate RUN``: prints the metrics and writes them to ``evaluation.json``."""
    folder = Path(args.run)
    ready = experiment_of_run(folder, [], args)
    with contextlib.ExitStack() as stack:
        store = open_checkpoints(ready, folder)
        stack.callback(store.close)
        restored = restore(ready, store)
    metrics = evaluation(ready, clients=True)(ready.program.place(restored.state))
    metrics = {name: float(value) for name, value in metrics.items()}
    path = folder / "evaluation.json"
    content = {"rounds": restored.step, "metrics": metrics}
    files.save(path, json.dumps(content, indent=2) + "\n")
    console = Console()
    for note in restored.notes:
        say(console, f"note: {note}")
    say(console, f"evaluation after round {restored.step}")
    console.print(metrics_table(metrics))
    say(console, f"wrote {path}")


def print_summary(summary: Summary, folder: Path, rounds: int) -> int:
    """Prints how a run ended; of several processes only the main one prints.

    Args:
      summary: the contents of ``summary.json``.
      folder: the folder of the run.
      rounds: the rounds that the configuration asks for.

    Returns:
      The exit status.
    """
    status = exit_status(summary["stopped"]) or int(not summary["saved"])
    if not is_main_process():
        return status
    console = Console()
    work = f"{summary['algorithm']} on {summary['task']}"
    length = f"{summary['rounds']} rounds in {summary['seconds']:.1f} s"
    say(console, f"{work}: {length}, {summary['stopped']}")
    if summary["metrics"]:
        console.print(metrics_table(summary["metrics"]))
    for note in summary["notes"]:
        say(console, f"note: {note}")
    more = f" --rounds {2 * rounds}" if summary["rounds"] >= rounds else ""
    say(console, f"results are in {folder}; continue with: fedjax-sim resume {folder}{more}")
    return status


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Makes a table of names and values, without deciles, which only the files have.

    Args:
      metrics: values by name.
    """
    table = Table(show_header=False)
    for name, value in metrics.items():
        if not re.search(r"_d\d$", name):
            table.add_row(Text(printable(name)), f"{value:.4g}")
    return table


def say(console: Console, text: str) -> None:
    """Prints lines without wrapping them, so that paths can be copied; control characters are
    escaped.

    Args:
      console: where to print.
      text: one or more lines.
    """
    console.print(
        "\n".join(map(printable, text.split("\n"))), soft_wrap=True, highlight=False, markup=False
    )


def _profile_text(folder: Path) -> str:
    traces = sorted(str(path) for path in folder.rglob("*.trace.json.gz"))
    if not traces:
        return "no profile: the run was too short for one"
    return f"profile: open {traces[-1]} at https://ui.perfetto.dev"
