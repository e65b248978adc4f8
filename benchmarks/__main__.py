"""``python -m benchmarks [--only W1,W2] [--peers all] [--full] [--json]``: our rounds against the same steps without federation.

Quick by default: the workloads but the largest, no peers. ``--full`` runs everything, peers, growth curves, start-up and lanes included,
and writes ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from benchmarks.tables import main_table

QUICK = ("W1", "W2", "W3", "W4", "W5", "W6")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    options = parse()
    jax.config.update("jax_num_cpu_devices", options.devices)
    lines = []
    for name in options.only:
        for lanes in options.lanes:
            lines.append(line := measured(name, lanes, options))
            if options.json:
                print(json.dumps(line), flush=True)
    if options.full:
        write_everything(lines, options)
    if not options.json:
        Console().print(main_table(lines))


def parse() -> argparse.Namespace:
    from benchmarks.peers import PEERS
    from benchmarks.workloads import WORKLOADS

    def peers(text: str) -> tuple[str, ...]:
        return tuple(PEERS) if text == "all" else tuple(text.split(","))

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help="workloads, such as W1,W3")
    parser.add_argument("--lanes", default="auto", type=lambda text: [n if n == "auto" else int(n) for n in text.split(",")])
    parser.add_argument("--devices", default=min(os.cpu_count() or 1, 2), type=int, help="CPU cores used as devices")
    parser.add_argument("--repeats", default=7, type=int)
    parser.add_argument("--peers", default=(), type=peers, help="other simulators to race: all, or names such as fedjax,flower")
    parser.add_argument("--json", action="store_true", help="one JSON line per workload")
    parser.add_argument("--full", action="store_true", help="everything, written to benchmarks/results")
    parser.add_argument("--machine", help="name of the results; by default the kind and number of processors")
    options = parser.parse_args()
    options.only = options.only or list(WORKLOADS if options.full else QUICK)
    options.peers = options.peers or (tuple(PEERS) if options.full else ())
    return options


def measured(name: str, lanes: Any, options: argparse.Namespace) -> dict[str, Any]:
    """One workload's line, its peers included."""
    from benchmarks.contest import ours, time_workload
    from benchmarks.peers.race import race
    from benchmarks.workloads import WORKLOADS

    workload = WORKLOADS[name]()
    line = time_workload(workload, options.devices, lanes, options.repeats)
    if options.peers:
        line["peers"] = race(workload, ours(workload, options.devices, lanes), options.peers)
    return line


def write_everything(lines: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """What a full run measures besides the main table, and the files that hold it all."""
    from benchmarks import growth, lanes, limits, results, startup

    begun = time.monotonic()
    machine = options.machine or results.machine()
    folder = RESULTS
    parts = {
        "workloads": lines,
        "limits": limits.measure(lines),
        "lanes": lanes.measure(options.only, 3),
        "growth": growth.measure(folder / machine),
        "startup": startup.measure(),
    }
    results.write(parts, folder, machine)
    print(f"written to {folder}/{machine}.md and .json, {time.monotonic() - begun:.0f} s after the main table")


if __name__ == "__main__":
    main()
