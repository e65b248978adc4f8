"""Commands of ``fedjax-sim`` as forks of a process that has imported all and started nothing.

Each begins where a fresh process is after its imports, so that many of them can be ended in a
minute. Functions that use them run in a process of their own (:mod:`benchmarks.fresh`).
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
"""Seconds after which waiting ends."""


def prepare() -> None:
    """Imports what every command needs.

    It must not start JAX, because a fork does not have the threads of JAX.
    """
    from fedjax_sim.experiments.config import entries_by_kind

    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
    for name in IMPORTS:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorboardX.proto.event_pb2")
    entries_by_kind()


def keep_programs(folder: Path) -> None:
    """Lets commands reuse compiled programs, from this folder unless all attacks share a cache."""
    if not Path(os.environ.get("FEDJAX_SIM_CACHE", "")).is_absolute():  # unset or "off"
        os.environ["FEDJAX_SIM_CACHE"] = str(folder)


def begin(words: Sequence[str], log: Path, before: Callable[[], None] | None = None) -> int:
    """Starts a command; returns its process id.

    Args:
      words: after ``fedjax-sim``.
      log: a file to which standard output and error are appended.
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
    """Waits for the end of a command; returns its exit status, negative for a signal.

    Args:
      pid: the process.
      patience: seconds after which it is killed, which gives ``-9``.
    """
    status = awaited(lambda: exit_status(pid), patience)
    return kill(pid) if status is None else status


def exit_status(pid: int) -> int | None:
    """The exit status of a command that has ended, otherwise ``None``."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def kill(pid: int) -> int:
    """Kills a command; returns its status, ``-9`` unless it had ended before."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def awaited(
    poll: Callable[[], T | None], patience: float = PATIENCE, pause: float = 0.002
) -> T | None:
    """Polls until a result is not ``None``.

    Args:
      poll: the function to call.
      patience: seconds after which ``None`` is returned.
      pause: seconds between two calls.
    """
    begun = time.monotonic()
    while (result := poll()) is None and time.monotonic() - begun < patience:
        time.sleep(pause)
    return result
