"""Verbs that train or evaluate."""

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
from fedjax_sim.experiments import Experiment, build
from fedjax_sim.experiments.config import entries_by_kind, read, resolve
from fedjax_sim.experiments.config.toml import Document
from fedjax_sim.experiments.run import (
    Summary,
    config_of,
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

MOST = 1024
"""Devices that a CPU can be made into within a second."""


def experiment(
    path: str | Path, overrides: Sequence[str], asked: argparse.Namespace | None = None
) -> Experiment:
    """The experiment of a configuration file, on a JAX that was set up for it; ``asked`` may want several processes."""
    document = read(path, overrides)
    processes = getattr(asked, "processes", None) or 1
    use_cores(devices(document, processes))
    enable_compilation_cache()
    if asked is not None and (
        asked.distributed
        or (asked.coordinator, asked.processes, asked.process_id) != (None, None, None)
    ):
        join(asked.coordinator, asked.processes, asked.process_id)
    return build(resolve(document, entries_by_kind()))


def devices(document: Document, processes: int = 1) -> int:
    """How many devices a CPU must have for a configuration that is not checked yet: its cores, or more where it asks for more; of
    several processes each its share of what it asks for."""
    engine = document.tables.get("engine")
    asked = engine.get("devices") if isinstance(engine, dict) else None
    if not isinstance(asked, int) or asked > MOST:  # which the engine then refuses
        return (
            cores() if processes == 1 else 1
        )  # several in each of several processes can wait for each other's collectives forever
    return max(cores(), asked) if processes == 1 else -(-asked // processes)


def run(asked: argparse.Namespace) -> int:
    """``run CONFIG [key=value ...] [--out DIR] [--profile DIR]``. Returns the exit status."""
    from fedjax_sim.simulation.callbacks import profile

    ready = experiment(asked.config, asked.overrides, asked)
    folder = new_folder(ready.config, asked.out)
    watch = [profile(asked.profile)] if asked.profile else []
    status = tell(carried_out(ready, folder, watch=watch), folder, ready.config.run.rounds)
    if asked.profile:
        traces = sorted(str(path) for path in Path(asked.profile).rglob("*.trace.json.gz"))
        say(
            Console(),
            f"profile: open {traces[-1]} at https://ui.perfetto.dev"
            if traces
            else "no profile: the run was too short for one",
        )
    return status


def resume(asked: argparse.Namespace) -> int:
    """``resume RUN [key=value ...] [--rounds N]``. Returns the exit status."""
    more = [] if asked.rounds is None else [f"rounds={asked.rounds}"]
    ready = experiment(config_of(asked.run), [*asked.overrides, *more], asked)
    return tell(
        carried_out(ready, Path(asked.run), resume=True), Path(asked.run), ready.config.run.rounds
    )


def carried_out(
    ready: Experiment, folder: Path, resume: bool = False, watch: Iterable[Callback] = ()
) -> Summary:
    """The summary of a run that was carried out."""
    again = f"fedjax-sim resume {folder}"

    def leave(number: int) -> None:
        """Whatever is being written counts only when it is whole, so that this is safe at any moment."""
        cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""  # a progress bar hides it
        os.write(
            2, f"{cursor}stopped at once; go on from the newest checkpoint with: {again}\n".encode()
        )
        os._exit(128 + number)

    with exit_if_peer_lost(lambda: f"start all of them again with: {again}"), second_signal(leave):
        return run_experiment(ready, folder, resume=resume, callbacks=watch)


def evaluate(asked: argparse.Namespace) -> None:
    """``evaluate RUN``: prints the numbers and writes them to ``evaluation.json``."""
    ready, folder = experiment(config_of(asked.run), []), Path(asked.run)
    with contextlib.ExitStack() as stack:
        store = open_checkpoints(ready, folder)
        stack.callback(store.close)
        found = restore(ready, store)
    numbers = {
        name: float(value)
        for name, value in evaluation(ready, clients=True)(ready.program.place(found.state)).items()
    }
    path = folder / "evaluation.json"
    files.save(path, json.dumps({"rounds": found.step, "metrics": numbers}, indent=2) + "\n")
    console = Console()
    for note in found.notes:
        say(console, note)
    say(console, f"round {found.step}")
    console.print(numbers_table(numbers))
    say(console, f"written to {path}")


def tell(summary: Summary, folder: Path, rounds: int) -> int:
    """The end of a run, in a few lines; of several processes the first one tells. Returns the exit status."""
    status = exit_status(summary["stopped"]) or int(not summary["saved"])
    if not is_main_process():
        return status
    console = Console()
    what = f"{summary['algorithm']} on {summary['task']}: {summary['rounds']} rounds in {summary['seconds']:.1f} s"
    say(console, f"{what}, {summary['stopped']}")
    if summary["metrics"]:
        console.print(numbers_table(summary["metrics"]))
    for note in summary["notes"]:
        say(console, f"note: {note}")
    more = f" --rounds {2 * rounds}" if summary["rounds"] >= rounds else ""
    say(console, f"everything is in {folder}; go on with: fedjax-sim resume {folder}{more}")
    return status


def numbers_table(numbers: dict[str, Any]) -> Table:
    """Names and values; deciles are left to the files."""
    table = Table(show_header=False)
    for name, value in numbers.items():
        if not re.search(r"_d\d$", name):
            table.add_row(Text(printable(name)), f"{value:.4g}")
    return table


def say(console: Console, text: str) -> None:
    """Lines that are not wrapped, so that paths can be copied, with nothing in them that a terminal would obey."""
    console.print(
        "\n".join(map(printable, text.split("\n"))), soft_wrap=True, highlight=False, markup=False
    )
