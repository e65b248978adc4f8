"""Commands of ``fedjax-sim`` as forks of a process that has imported everything and started nothing: each begins where a fresh process
is after its imports, so that many of them can be ended in a minute. What uses them runs in a process of its own (:mod:`benchmarks.fresh`).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
IMPORTS = (
    "fedjax_sim.cli.run",
    "fedjax_sim.simulation.simulate",
    "fedjax_sim.simulation.evaluate",
    "fedjax_sim.engine.host.client_memory",
    "orbax.checkpoint.experimental.v1",
    "sklearn.datasets",
    "rich.console",
)
PATIENCE = 120.0
"""Seconds after which something that should have happened has not."""


def prepare() -> None:
    """Imports what every life needs. Nothing here may start JAX, whose threads a fork would not have."""
    from fedjax_sim.experiments.config import entries_by_kind

    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
    for name in IMPORTS:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorboardX.proto.event_pb2")
    entries_by_kind()


def keep_programs(folder: Path) -> None:
    """What a life compiles is there for the next: in this folder, unless all attacks have one in common."""
    if not Path(os.environ.get("FEDJAX_SIM_CACHE", "")).is_absolute():  # none, or a word for none
        os.environ["FEDJAX_SIM_CACHE"] = str(folder)


def begin(words: Sequence[str], log: Path, before: Callable[[], None] | None = None) -> int:
    """Starts a command, whose words go to the end of a log. Returns its process id.

    Args:
      words: after ``fedjax-sim``.
      log: of standard output and error.
      before: called in the new process first.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if before is not None:
            before()
        from fedjax_sim.cli import main

        status = main(words)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def end(pid: int, patience: float = PATIENCE) -> int:
    """The exit status of a life that ends by itself, negative for a signal. One that does not is killed: ``-9``."""
    status = awaited(lambda: gone(pid), patience)
    return kill(pid) if status is None else status


def gone(pid: int) -> int | None:
    """The exit status of a life that has ended, else ``None``."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def kill(pid: int) -> int:
    """Ends a life at once. Returns its status: ``-9``, or another one where it ended by itself before."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def awaited(
    look: Callable[[], T | None], patience: float = PATIENCE, pause: float = 0.002
) -> T | None:
    """What ``look`` finds, asked again and again; ``None`` where it finds nothing for so long."""
    begun = time.monotonic()
    while (found := look()) is None and time.monotonic() - begun < patience:
        time.sleep(pause)
    return found
