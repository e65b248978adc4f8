"""``python -m benchmarks.scale [--only host,people] [--json]``: more data than the devices hold.

* ``host``: examples on the host over examples on the devices, W1 and W2, on one and two devices,
  and the same without overlap.
* ``people``: 1,000,000 clients on disk against 1,000: opening, a round, memory, a cohort that is
  read from the disk.
* ``memory``: client memory in files over client memory on the devices, and a table that fits on no
  device.
* ``cohort``: peak memory of a cohort of 100 and of 10,000.
* ``processes``: two processes of a device each over one process of both.
* ``paper``: what grows with the number of clients, at 1,000 to 100,000,000.

Under ten minutes in all. Each part is written to ``benchmarks/results/scale-<machine>.{json,md}``
when it is done, and into ``docs/scale.md`` between its markers; parts that are not measured stay as
they are. Takes 5 GB of disk for a while, in ``--scratch``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import joined, report_file, scale_pages
from benchmarks.fresh import fresh
from fedjax_sim.core.errors import require

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
START = "<!-- scale -->"
END = "<!-- /scale -->"
MILLION = 10**6
HUNDRED_MILLION = 10**8
COHORTS = (100, 10_000)


def host(scratch: Path) -> list[dict[str, Any]]:
    """Rows of :func:`benchmarks.hosted.examples`."""
    return [
        fresh("benchmarks.hosted:examples", name=name, devices=devices, repeats=repeats)
        for name, repeats in (("W1", 60), ("W2", 9))
        for devices in (1, 2)
    ]


def people(scratch: Path) -> dict[str, Any]:
    """A million clients and a thousand."""
    large = folder(scratch, MILLION)
    small = folder(scratch, 1000)
    written = crowd(scratch, MILLION)
    crowd(scratch, 1000)
    return {
        "clients": MILLION,
        **{f"write_{key}": value for key, value in written.items()},
        "alone": fresh("benchmarks.crowds:living", folder=large),
        "rounds": fresh("benchmarks.crowds:rounds", large=large, small=small, repeats=100),
        "cold": fresh("benchmarks.crowds:cold", folder=large),
        "predicted": fresh("benchmarks.crowds:predicted", folder=large),
    }


def memory(scratch: Path) -> dict[str, Any]:
    """Rows of :func:`benchmarks.hosted.memory`, and :func:`benchmarks.hosted.remembering`."""
    rows = [fresh("benchmarks.hosted:memory", devices=devices, repeats=30) for devices in (1, 2)]
    folder = str(scratch / "remembered")
    return {
        "rows": rows,
        "table": fresh("benchmarks.hosted:remembering", folder=folder, repeats=30),
    }


def cohort(scratch: Path) -> dict[str, Any]:
    """Peak memory of two cohorts.

    Their programs are compiled in an earlier process, so that the compiler's memory is not counted.
    """
    crowd(scratch, MILLION)
    data = folder(scratch, MILLION)

    def on_device(size: int, rounds: int) -> dict[str, Any]:
        return fresh("benchmarks.growth:memory", cohort=size, devices=1, rounds=rounds)

    def on_host(size: int, rounds: int) -> dict[str, Any]:
        return fresh(
            "benchmarks.crowds:living", folder=data, cohort=size, rounds=rounds, model="mlp"
        )

    rows = []
    for place, run in (("device", on_device), ("host", on_host)):
        for size in COHORTS:
            run(size, 1)
            rows.append({"place": place, "cohort": size, **run(size, 3)})
    predicted = [
        fresh("benchmarks.crowds:predicted", folder=data, cohort=size, model="mlp")
        for size in COHORTS
    ]
    return {"rows": rows, "predicted": predicted}


def processes(scratch: Path) -> list[dict[str, Any]]:
    """Rows of :func:`benchmarks.joined.measure`."""
    return [joined.measure("W1", rounds=10, repeats=15), joined.measure("W2", rounds=1, repeats=9)]


def paper(scratch: Path) -> dict[str, Any]:
    """What needs no examples, at 1,000 to 100,000,000 clients, and rounds on sparse files."""
    numbers = [
        fresh("benchmarks.watch:numbers", clients=clients)
        for clients in (1000, MILLION, HUNDRED_MILLION)
    ]
    data = str(scratch / "holes")
    return {
        "numbers": numbers,
        "clients": HUNDRED_MILLION,
        "files": fresh("benchmarks.crowds:holes", folder=data, clients=HUNDRED_MILLION),
        "alone": fresh("benchmarks.crowds:living", folder=data, rounds=4),
        "predicted": fresh("benchmarks.crowds:predicted", folder=data),
    }


PARTS: dict[str, Callable[[Path], Any]] = {
    "host": host,
    "people": people,
    "memory": memory,
    "cohort": cohort,
    "processes": processes,
    "paper": paper,
}


def crowd(scratch: Path, clients: int) -> dict[str, Any]:
    """Writes a population of this number of clients, if it is missing; returns what it took."""
    path = folder(scratch, clients)
    if Path(path).exists():
        return {}
    return fresh("benchmarks.crowds:write", folder=path, clients=clients)


def folder(scratch: Path, clients: int) -> str:
    """The folder of the population of this number of clients."""
    return str(scratch / f"clients-{clients}")


def put(parts: dict[str, Any], machine: str, fresh_parts: tuple[str, ...]) -> None:
    """Writes all parts, and the page's tables.

    Args:
      parts: by name.
      machine: the machine's name.
      fresh_parts: names of the parts measured in this run.
    """
    path = RESULTS / f"scale-{machine}.json"
    commits = json.loads(path.read_text())["facts"]["parts"] if path.exists() else {}
    facts = report_file.facts()
    facts["parts"] = {**commits, **dict.fromkeys(fresh_parts, facts["commit"])}
    RESULTS.mkdir(exist_ok=True)
    report = {"machine": machine, "facts": facts, "parts": parts}
    path.write_text(json.dumps(report, indent=1) + "\n")
    body = scale_pages.document(facts, parts)
    path.with_suffix(".md").write_text(f"# Scale: {machine}\n\n{body}\n")
    text = PAGE.read_text()
    require(
        START in text and END in text,
        f"{PAGE.name} has no place for the figures",
        got="no markers",
        fix=f"put {START} and {END} around it",
    )
    PAGE.write_text(f"{text.split(START)[0]}{START}\n{body}\n{END}{text.split(END, 1)[1]}")


def main() -> None:
    """Runs the command of the module's docstring."""
    options = parse()
    machine = options.machine or report_file.machine()
    path = RESULTS / f"scale-{machine}.json"
    parts: dict[str, Any] = json.loads(path.read_text())["parts"] if path.exists() else {}
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.scratch) as scratch:
        for name in options.only:
            parts[name] = PARTS[name](Path(scratch))
            put(parts, machine, (name,))
            line = json.dumps({name: parts[name]}) if options.json else f"{name} written to {path}"
            print(line, flush=True)


def parse() -> argparse.Namespace:
    """The command line's options."""
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=verbatim
    )
    parser.add_argument(
        "--only",
        default=tuple(PARTS),
        type=lambda text: tuple(text.split(",")),
        help=f"some of {','.join(PARTS)}",
    )
    parser.add_argument("--json", action="store_true", help="print every part as a line of JSON")
    parser.add_argument(
        "--machine", help="name of the results; by default the kind and number of processors"
    )
    parser.add_argument(
        "--scratch", help="folder for a population of 3 GB; a temporary one by default"
    )
    options = parser.parse_args()
    if unknown := [name for name in options.only if name not in PARTS]:
        parser.error(f"--only: unknown {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    return options


if __name__ == "__main__":
    main()
