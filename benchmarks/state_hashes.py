"""``python -m benchmarks.state_hashes OLD_CHECKOUT``: compares the runs of two checkouts.

Runs every shipped configuration that needs no data folder, on 1 and 2 CPU devices, in another
checkout and in this one, each with its own files in ``configs``. Prints a table of both state
hashes; the exit status is 1 if any differs or any run fails. The outputs are temporary.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent.parent
DEVICES = (1, 2)
ROUNDS = 60
LIMIT = 900
"""Seconds that a run may take."""
HASH_LETTERS = 16
"""Letters of a hash that the table shows; all of them are compared."""
ERROR_LETTERS = 300
"""Letters of a failed run's standard error that are shown."""


FAILED = "failed: "
"""The beginning of what a run without a hash returns."""


class Comparison(NamedTuple):
    """One configuration on a number of devices, in both checkouts."""

    configuration: str
    devices: int
    old: str
    """The state's hash in the other checkout, or why there is none."""
    new: str
    """The same in this checkout."""

    @property
    def equal(self) -> bool:
        """Whether both runs ended in the same bits."""
        return self.old == self.new and not self.old.startswith(FAILED)


def configurations(checkout: Path) -> list[str]:
    """Names of the configurations of a checkout whose task reads no files."""
    paths = sorted((checkout / "configs").glob("*.toml"))
    return [path.stem for path in paths if not needs_data(path)]


def needs_data(path: Path) -> bool:
    """Whether a configuration's task has a ``source``, which is a folder or a file of data."""
    from fedjax_sim.experiments.config import entries_by_kind

    task = tomllib.loads(path.read_text(encoding="utf-8"))["task"]
    entry = entries_by_kind()["task"][task["name"]]
    return "source" in inspect.signature(entry.factory).parameters


def state_hash(checkout: Path, name: str, devices: int, rounds: int, out: Path) -> str:
    """Runs a configuration in a checkout; returns the hash of its last state.

    Args:
      checkout: the folder with ``fedjax_sim`` and ``configs``.
      name: of the configuration, without ``.toml``.
      devices: number of CPU devices.
      rounds: of the run.
      out: folder of the run, which must not exist.

    Returns:
      The ``state_hash`` of the run's summary, or ``failed: `` with the end of its standard error.
    """
    command = [sys.executable, "-m", "fedjax_sim", "run", f"configs/{name}.toml"]
    command += [f"rounds={rounds}", f"engine.devices={devices}", "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
    try:
        done = subprocess.run(
            command, cwd=checkout, env=env, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return f"{FAILED}more than {LIMIT} s"
    if done.returncode:
        return f"{FAILED}{' '.join(done.stderr.split())[-ERROR_LETTERS:]}"
    return json.loads((out / "summary.json").read_text())["state_hash"]


def compare(old: Path, new: Path, rounds: int) -> Iterator[Comparison]:
    """Yields the comparison of every configuration on every number of devices.

    Args:
      old: the other checkout.
      new: this checkout.
      rounds: of every run.
    """
    with tempfile.TemporaryDirectory(prefix="state-hashes-") as top:
        for name in configurations(new):
            for devices in DEVICES:
                hashes = [
                    state_hash(
                        checkout, name, devices, rounds, Path(top) / side / f"{name}-{devices}"
                    )
                    for side, checkout in (("old", old), ("new", new))
                ]
                yield Comparison(name, devices, *hashes)


def main() -> int:
    """Runs the command of the module's docstring; returns its exit status."""
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.state_hashes", description=__doc__, formatter_class=verbatim
    )
    parser.add_argument("old", type=Path, metavar="OLD_CHECKOUT", help="a folder of another commit")
    parser.add_argument("--rounds", default=ROUNDS, type=int, help="rounds of every run")
    options = parser.parse_args()
    old = options.old.resolve()
    if not (old / "fedjax_sim").is_dir():
        parser.error(f"{old} has no folder fedjax_sim; give the root of a checkout")
    print(line("configuration", "devices", "old", "new", "equal"), flush=True)
    equal = []
    for comparison in compare(old, HERE, options.rounds):
        equal.append(comparison.equal)
        print(line_of(comparison), flush=True)
    print(f"{sum(equal)} of {len(equal)} are equal after {options.rounds} rounds")
    return 0 if equal and all(equal) else 1


def line(*cells: str) -> str:
    """A line of the table."""
    widths = (24, 9, HASH_LETTERS + 2, HASH_LETTERS + 2, 0)
    return "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))


def line_of(comparison: Comparison) -> str:
    """The table's line of a comparison, and below it the errors of runs that failed."""
    hashes = [_short(comparison.old), _short(comparison.new)]
    equal = "yes" if comparison.equal else "NO"
    lines = [line(comparison.configuration, str(comparison.devices), *hashes, equal)]
    lines += [
        f"    {side} {text}"
        for side, text in (("old", comparison.old), ("new", comparison.new))
        if text.startswith(FAILED)
    ]
    return "\n".join(lines)


def _short(text: str) -> str:
    return "failed" if text.startswith(FAILED) else text[:HASH_LETTERS]


if __name__ == "__main__":
    sys.exit(main())
