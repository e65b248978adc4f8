"""``python -m benchmarks.reliability [--quick] [--only kills,disk] [--json]``: every promise attacked, in 15 minutes on two cores.

With ``--quick`` in less than two. Two rows at a time, but for those that measure time on all cores. A run of all rows that is not quick
writes its table into ``docs/reliability.md``. The exit status is 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from rich.console import Console
from rich.table import Table

from benchmarks.reliability import page
from benchmarks.reliability.page import Result
from benchmarks.reliability.rows import ROWS
from benchmarks.reliability.tally import Tally

SIDE_BY_SIDE = 2
"""Rows at a time: they wait for processes and disks as much as they compute."""


def main() -> int:
    options = parse()
    begun, found = time.monotonic(), {}
    # What attacks start shall have no habits of the user's, and what one has compiled the next need not.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as programs:
        os.environ["FEDJAX_SIM_CACHE"] = programs
        for done in attacks(options.only, options.quick):
            found[done.name] = done
            tell(done, options.json)
    results = [found[name] for name in options.only]
    if not options.json:
        Console().print(shown(results))
    if not options.quick and options.only == available():
        page.update(results, time.monotonic() - begun)
    return int(any(result.tally.lost for result in results))


def tell(done: Result, in_json: bool) -> None:
    """One row, as soon as it is there."""
    if in_json:
        print(json.dumps(page.line(done)), flush=True)
    else:
        print(
            f"{done.name}: {done.tally.attacks} attacks, {len(done.tally.lost)} lost, {done.seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer attacks, and nothing is written"
    )
    parser.add_argument("--json", action="store_true", help="one JSON line for each row")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), help=f"some of {','.join(available())}"
    )
    options = parser.parse_args()
    odd = [name for name in options.only or () if name not in available()]
    if odd:
        parser.error(f"--only: unknown {', '.join(odd)}; choose from {', '.join(available())}")
    options.only = options.only or available()
    return options


def available() -> list[str]:
    """The rows whose promise exists in this version."""
    return [name for name, row in ROWS.items() if row.there()]


def attacks(names: list[str], quick: bool) -> Iterator[Result]:
    """The rows as they end; those that want the machine to themselves last. None is timed where there is no time."""
    alone = [name for name in names if ROWS[name].alone and not quick]
    pool = ThreadPoolExecutor(SIDE_BY_SIDE)
    try:
        yield from (
            each.result()
            for each in as_completed(
                [pool.submit(attacked, name, quick) for name in names if name not in alone]
            )
        )
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing more begins
    yield from (attacked(name, quick) for name in alone)


def attacked(name: str, quick: bool) -> Result:
    """One row. An attack that fails itself has found something, too."""
    begun = time.monotonic()
    try:
        found = (ROWS[name].quick if quick else ROWS[name].full)()
    except Exception as error:
        found = Tally(0, (f"the attack itself failed: {type(error).__name__}: {error}",))
    return Result(name, found, time.monotonic() - begun)


def shown(results: list[Result]) -> Table:
    """The results for the terminal."""
    table = Table("", "attacks", "lost", "note", show_lines=True)
    for name, found, _ in results:
        table.add_row(
            name,
            f"{found.attacks:,}",
            page.outcome(found),
            "\n".join([found.note, *found.lost[:5]]),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
