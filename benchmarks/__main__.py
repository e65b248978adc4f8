"""``python -m benchmarks [--only W1,W2] [--peers all] [--full] [--json]``: our rounds over floors.

Quick by default: all workloads except the largest, no peers. ``--full`` runs everything, peers,
growth curves, start-up and lanes included (2 h), and writes ``benchmarks/results`` after each part;
``--full --parts peers,growth`` measures these parts and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from benchmarks.tables import main_table

QUICK = ("W1", "W2", "W3", "W4", "W5", "W6")
PARTS = ("workloads", "peers", "limits", "lanes", "growth", "startup")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Runs the command of the module's docstring."""
    options = parse()
    jax.config.update("jax_num_cpu_devices", options.devices or min(os.cpu_count() or 1, 2))
    options.devices = options.devices or jax.device_count()
    if options.full:
        everything(options)
        return
    lines = []
    for name in options.only:
        for lanes in options.lanes:
            line = measured(name, lanes, options)
            lines.append(line)
            if options.json:
                print(json.dumps(line), flush=True)
    if not options.json:
        Console().print(main_table(lines))


def parse() -> argparse.Namespace:
    """The command line's options."""
    from benchmarks.peers import PEERS
    from benchmarks.workloads import WORKLOADS

    def peers(text: str) -> tuple[str, ...]:
        return tuple(PEERS) if text == "all" else words(text)

    def words(text: str) -> tuple[str, ...]:
        return tuple(text.split(","))

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=words, help="workloads, such as W1,W3")
    parser.add_argument(
        "--lanes",
        default="auto",
        type=lambda text: [n if n == "auto" else int(n) for n in text.split(",")],
    )
    parser.add_argument(
        "--devices", type=int, help="their number; by default two CPU cores, or all accelerators"
    )
    parser.add_argument("--repeats", default=7, type=int)
    parser.add_argument(
        "--budget",
        default=40.0,
        type=float,
        help="seconds of repetitions for a workload, a peer on it, or its lanes",
    )
    parser.add_argument(
        "--peers",
        default=(),
        type=peers,
        help="other simulators to race: all, or names such as fedjax,flower",
    )
    parser.add_argument("--json", action="store_true", help="one JSON line per workload")
    parser.add_argument(
        "--full", action="store_true", help="everything, written to benchmarks/results"
    )
    parser.add_argument(
        "--parts", default=PARTS, type=words, help=f"parts of a full run: {','.join(PARTS)}"
    )
    parser.add_argument(
        "--machine", help="name of the results; by default the kind and number of processors"
    )
    options = parser.parse_args()
    options.only = options.only or list(WORKLOADS if options.full else QUICK)
    options.peers = options.peers or (tuple(PEERS) if options.full else ())
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"--parts: unknown {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    return options


def measured(name: str, lanes: Any, options: argparse.Namespace) -> dict[str, Any]:
    """One workload's line, with its peers if any are requested."""
    line = timed(name, lanes, options)
    return line | {"peers": raced(name, options)} if options.peers else line


def timed(name: str, lanes: Any, options: argparse.Namespace) -> dict[str, Any]:
    """One workload against its floors."""
    from benchmarks.contest import time_workload
    from benchmarks.workloads import WORKLOADS

    return time_workload(WORKLOADS[name](), options.devices, lanes, options.repeats, options.budget)


def raced(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One workload against its peers."""
    from benchmarks.contest import ours
    from benchmarks.peers.race import race
    from benchmarks.workloads import WORKLOADS

    workload = WORKLOADS[name]()
    return race(
        workload, ours(workload, options.devices, "auto"), options.peers, budget=options.budget
    )


def everything(options: argparse.Namespace) -> None:
    """Runs the parts of a full run in sequence; results are written after each."""
    from benchmarks import growth, lanes, limits, report_file, results, startup

    machine = options.machine or report_file.machine()
    path = RESULTS / f"{machine}.json"
    parts: dict[str, Any] = report_file.read(path).parts if path.exists() else {}

    def put(name: str, part: Any) -> None:
        parts[name] = part
        results.write(parts, RESULTS, machine, options.parts)
        print(f"{name} written to {path}", flush=True)

    def workloads() -> None:
        lines = {line["workload"]: line for line in parts.get("workloads", [])}
        for name in options.only:
            lines[name] = lines.get(name, {}) | timed(name, "auto", options)
            put("workloads", [lines[key] for key in sorted(lines)])

    def peers() -> None:
        for line in parts["workloads"]:
            if line["workload"] in options.only:
                line["peers"] = line.get("peers", {}) | raced(line["workload"], options)
                put("workloads", parts["workloads"])

    def lane_choices() -> None:
        for name in options.only:
            put("lanes", parts.get("lanes", {}) | lanes.measure([name], 3, budget=options.budget))

    stages = {
        "workloads": workloads,
        "peers": peers,
        "limits": lambda: put("limits", limits.measure(parts["workloads"])),
        "lanes": lane_choices,
        "growth": lambda: put("growth", growth.measure(RESULTS / machine)),
        "startup": lambda: put("startup", startup.measure()),
    }
    for name in options.parts:
        stages[name]()


if __name__ == "__main__":
    main()
