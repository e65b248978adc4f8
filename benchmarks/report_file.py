"""A report: what was measured, and on what machine, as ``<machine>.json``."""

from __future__ import annotations

import datetime
import json
import math
import platform
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

README = Path(__file__).parent.parent / "README.md"
COMMAND = "python -m benchmarks --full"


class Report(NamedTuple):
    """All that one run measured."""

    machine: str
    """Its name, such as ``cpu-2-cores``; also the name of its files."""
    facts: dict[str, Any]
    """Versions, commit, cores, date: see :func:`facts`."""
    parts: dict[str, Any]
    """By name: ``workloads`` (lines of the main table, with ``peers`` in them), ``limits``,
    ``lanes``, ``growth``, ``startup``; any of them may be missing."""


def read(path: str | Path) -> Report:
    """Reads a report from its ``.json``."""
    return Report(**json.loads(Path(path).read_text()))


def machine() -> str:
    """Kind and number of the processors: ``cpu-2-cores``, ``nvidia-h200``."""
    import jax

    from fedjax_sim.runtime.devices import cores

    devices = jax.devices()
    if devices[0].platform == "cpu":
        return f"cpu-{cores()}-cores"
    kind = re.sub(r"[^a-z0-9]+", "-", devices[0].device_kind.lower()).strip("-")
    return kind if len(devices) == 1 else f"{len(devices)}-{kind}"


def facts() -> dict[str, Any]:
    """What the figures depend on besides the code that is measured."""
    import jax

    from fedjax_sim.persistence.manifest import versions
    from fedjax_sim.runtime.devices import cores

    return {
        **versions(),
        "commit": commit(),
        "cores": cores(),
        "processor": processor(),
        "devices": [device.device_kind for device in jax.devices()],
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def commit() -> str:
    """The commit of the work tree, with ``+`` if files differ from it; ``unknown`` without one."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _git(*words: str) -> str:
    command = ["git", *words]
    done = subprocess.run(command, cwd=README.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def processor() -> str:
    """The processor's name, if the operating system reports it."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return name.group(1) if name else platform.processor() or platform.machine()


def geometric(values: list[float]) -> float:
    """Geometric mean; nan of no values."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan
