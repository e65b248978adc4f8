"""``python -m benchmarks.scale [--only host,people] [--json]``: data and client memory beyond the devices, a million clients, processes.

* ``host``: examples on the host over examples on the devices, W1 and W2, on one and two devices, and the same without overlap.
* ``people``: 1,000,000 clients on disk against 1,000: opening, a round, memory, a cohort that is read from the disk.
* ``memory``: what clients remember, in files over on the devices, and a table that no device holds.
* ``cohort``: peak memory of a cohort of 100 and of 10,000.
* ``processes``: two processes of a device each over one process of both.
* ``paper``: what grows with the number of clients, at 1,000 to 100,000,000.

Under ten minutes in all. Each part is written to ``benchmarks/results/scale-<machine>.{json,md}`` when it is done, and into
``docs/scale.md`` between its markers; parts that are not measured anew stay. Takes 5 GB of disk for a while, in ``--scratch``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import joined, results, scale_pages
from benchmarks.fresh import fresh
from fedjax_sim.core.errors import require

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
START, END = "<!-- scale -->", "<!-- /scale -->"
MILLION, HUNDRED_MILLION = 10**6, 10**8
COHORTS = (100, 10_000)


def host(scratch: Path) -> list[dict[str, Any]]:
    """Rows of :func:`benchmarks.hosted.examples`."""
    cases = [
        (name, devices, repeats) for name, repeats in (("W1", 60), ("W2", 9)) for devices in (1, 2)
    ]
    return [
        fresh("benchmarks.hosted:examples", name=name, devices=devices, repeats=repeats)
        for name, devices, repeats in cases
    ]


def people(scratch: Path) -> dict[str, Any]:
    """A million clients and a thousand."""
    written = crowd(scratch, MILLION)
    large, small = folder(scratch, MILLION), folder(scratch, 1000)
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
    return {
        "rows": rows,
        "table": fresh(
            "benchmarks.hosted:remembering", folder=str(scratch / "remembered"), repeats=30
        ),
    }


def cohort(scratch: Path) -> dict[str, Any]:
    """Peak memory of two cohorts, compiled in an earlier process, for a compiler's memory is not a round's."""
    crowd(scratch, MILLION)
    cases: dict[str, Callable[..., dict[str, Any]]] = {
        "device": lambda size, rounds: fresh(
            "benchmarks.growth:memory", cohort=size, devices=1, rounds=rounds
        ),
        "host": lambda size, rounds: fresh(
            "benchmarks.crowds:living",
            folder=folder(scratch, MILLION),
            cohort=size,
            rounds=rounds,
            model="mlp",
        ),
    }
    rows = []
    for place, run in cases.items():
        for size in COHORTS:
            run(size, 1)
            rows.append({"place": place, "cohort": size, **run(size, 3)})
    told = [
        fresh(
            "benchmarks.crowds:predicted", folder=folder(scratch, MILLION), cohort=size, model="mlp"
        )
        for size in COHORTS
    ]
    return {"rows": rows, "predicted": told}


def processes(scratch: Path) -> list[dict[str, Any]]:
    """Rows of :func:`benchmarks.joined.measure`."""
    return [joined.measure("W1", rounds=10, repeats=15), joined.measure("W2", rounds=1, repeats=9)]


def paper(scratch: Path) -> dict[str, Any]:
    """What needs no examples, at 1,000 to 100,000,000 clients, and rounds of 100,000,000 whose examples are holes."""
    numbers = [
        fresh("benchmarks.crowds:numbers", clients=clients)
        for clients in (1000, MILLION, HUNDRED_MILLION)
    ]
    there = str(scratch / "holes")
    return {
        "numbers": numbers,
        "clients": HUNDRED_MILLION,
        "files": fresh("benchmarks.crowds:holes", folder=there, clients=HUNDRED_MILLION),
        "alone": fresh("benchmarks.crowds:living", folder=there, rounds=4),
        "predicted": fresh("benchmarks.crowds:predicted", folder=there),
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
    """Writes that many clients, unless they are there; returns what it took."""
    there = Path(folder(scratch, clients))
    return (
        {}
        if there.exists()
        else fresh("benchmarks.crowds:write", folder=str(there), clients=clients)
    )


def folder(scratch: Path, clients: int) -> str:
    """Where so many clients are."""
    return str(scratch / f"clients-{clients}")


def put(parts: dict[str, Any], machine: str, fresh_parts: tuple[str, ...]) -> None:
    """Writes all parts, and the page's tables."""
    kept = RESULTS / f"scale-{machine}.json"
    earlier = json.loads(kept.read_text())["facts"]["parts"] if kept.exists() else {}
    facts = results.facts()
    facts["parts"] = {**earlier, **dict.fromkeys(fresh_parts, facts["commit"])}
    RESULTS.mkdir(exist_ok=True)
    kept.write_text(
        json.dumps({"machine": machine, "facts": facts, "parts": parts}, indent=1) + "\n"
    )
    body = scale_pages.document(facts, parts)
    kept.with_suffix(".md").write_text(f"# Scale: {machine}\n\n{body}\n")
    text = PAGE.read_text()
    require(
        START in text and END in text,
        f"{PAGE.name} has no place for the figures",
        got="no markers",
        fix=f"put {START} and {END} around it",
    )
    PAGE.write_text(f"{text.split(START)[0]}{START}\n{body}\n{END}{text.split(END, 1)[1]}")


def main() -> None:
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
    if odd := [name for name in options.only if name not in PARTS]:
        parser.error(f"--only: unknown {', '.join(odd)}; choose from {', '.join(PARTS)}")
    machine = options.machine or results.machine()
    kept = RESULTS / f"scale-{machine}.json"
    parts: dict[str, Any] = json.loads(kept.read_text())["parts"] if kept.exists() else {}
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.scratch) as scratch:
        for name in options.only:
            parts[name] = PARTS[name](Path(scratch))
            put(parts, machine, (name,))
            print(
                json.dumps({name: parts[name]}) if options.json else f"{name} written to {kept}",
                flush=True,
            )


if __name__ == "__main__":
    main()
