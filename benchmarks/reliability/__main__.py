"""``python -m benchmarks.reliability [--quick] [--only kills,disk] [--json]``: all attacks.

Takes 15 minutes on two cores, with ``--quick`` less than two. Two rows run at a time, except for
those that measure time on all cores. A run of all rows without ``--quick`` writes its table into
``docs/reliability.md``. The exit status is 1 if anything was lost.
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
"""Rows at a time: they spend half of their time waiting for processes and disks."""


def main() -> int:
    """Runs the command of the module's docstring; returns its exit status."""
    options = parse()
    begun = time.monotonic()
    by_name = {}
    # A cache of compiled programs that all attacks share, and that is not the user's.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as programs:
        os.environ["FEDJAX_SIM_CACHE"] = programs
        for result in attacks(options.only, options.quick):
            by_name[result.name] = result
            show(result, options.json)
    results = [by_name[name] for name in options.only]
    if not options.json:
        Console().print(table_of(results))
    if not options.quick and options.only == available():
        page.update(results, time.monotonic() - begun)
    return int(any(result.tally.lost for result in results))


def show(result: Result, in_json: bool) -> None:
    """Prints one row: as JSON, or briefly to standard error."""
    if in_json:
        print(json.dumps(page.line(result)), flush=True)
        return
    tally = result.tally
    text = f"{tally.attacks} attacks, {len(tally.lost)} lost, {result.seconds:.0f} s"
    print(f"{result.name}: {text}", file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """The command line's options."""
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
    unknown = [name for name in options.only or () if name not in available()]
    if unknown:
        parser.error(f"--only: unknown {', '.join(unknown)}; choose from {', '.join(available())}")
    options.only = options.only or available()
    return options


def available() -> list[str]:
    """Names of the rows whose promise exists in this version."""
    return [name for name, row in ROWS.items() if row.exists()]


def attacks(names: list[str], quick: bool) -> Iterator[Result]:
    """Yields the result of every row when it is done.

    Args:
      names: of the rows.
      quick: whether to run the smaller attacks. Otherwise rows that measure time run alone, after
        the others.
    """
    alone = [name for name in names if ROWS[name].alone and not quick]
    pool = ThreadPoolExecutor(SIDE_BY_SIDE)
    try:
        running = [pool.submit(attacked, name, quick) for name in names if name not in alone]
        yield from (future.result() for future in as_completed(running))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C no other row begins
    yield from (attacked(name, quick) for name in alone)


def attacked(name: str, quick: bool) -> Result:
    """Runs one row. An attack that raises an error counts as a loss."""
    begun = time.monotonic()
    try:
        tally = (ROWS[name].quick if quick else ROWS[name].full)()
    except Exception as error:
        tally = Tally(0, (f"the attack itself failed: {type(error).__name__}: {error}",))
    return Result(name, tally, time.monotonic() - begun)


def table_of(results: list[Result]) -> Table:
    """The results for the terminal."""
    table = Table("", "attacks", "lost", "note", show_lines=True)
    for name, tally, _ in results:
        note = "\n".join([tally.note, *tally.lost[:5]])
        table.add_row(name, f"{tally.attacks:,}", page.outcome(tally), note)
    return table


if __name__ == "__main__":
    sys.exit(main())
