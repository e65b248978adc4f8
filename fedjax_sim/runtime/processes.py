"""One run on several processes: which of them writes files, how they exchange text, and what
happens if one of them dies.

As usual in JAX, every process runs the same program on its own devices. The first one alone writes
files and prints. With a single process, these functions do nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from fedjax_sim.core.errors import FedError, require, sentence

GONE = 3
"""Exit status of a process whose run ended because another process died."""
HEARTBEAT = 30
"""Seconds without a heartbeat after which a process is considered dead, if no connection to it
broke before."""

REASON_BYTES = 200
"""Bytes of a reason to stop that is sent to all processes."""


def join(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Makes this process one of several of a run. To be called before anything runs on JAX.

    Args:
      coordinator: ``host:port`` of the first process; without it, JAX detects it on SLURM,
        Kubernetes, Cloud TPU and Open MPI.
      processes: number of processes.
      process_id: the number of this process, from 0.

    Raises:
      FedError: unless all three or none are given, or if the other processes cannot be reached.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process-id": process_id}
    missing = [name for name, value in given.items() if value is None]
    require(
        len(missing) in (0, 3),
        "several processes need --coordinator HOST:PORT, --processes N and --process-id I",
        got=f"no {' and no '.join(missing)}",
        fix="give all three, or --distributed alone on a cluster that JAX knows",
    )
    if processes is not None and process_id is not None:
        require(
            0 <= process_id < processes,
            "--process-id must be from 0 to --processes - 1",
            got=f"{process_id} of {processes}",
            fix="number the processes from 0",
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator, processes, process_id, heartbeat_timeout_seconds=HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        got = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        fix = "start all processes with the same --coordinator, a free port of the first one's host"
        raise FedError(sentence("the processes could not connect", got=got, fix=fix)) from error


def several() -> bool:
    """Returns True if this run has more than one process."""
    return jax.process_count() > 1


def is_main_process() -> bool:
    """Returns True in the process that writes files and prints.

    >>> from fedjax_sim.runtime.processes import is_main_process
    >>> is_main_process()
    True
    """
    return jax.process_index() == 0


def run_on_main(work: Callable[[], str]) -> str:
    """Calls a function in the first process and returns its result in every process.

    Args:
      work: ``() -> text``. A :class:`FedError` of it is raised in every process.

    >>> from fedjax_sim.runtime.processes import run_on_main
    >>> run_on_main(lambda: "a folder's name")
    "a folder's name"
    """
    if not several():
        return work()
    answer = ""
    if is_main_process():
        try:
            answer = "+" + work()
        except FedError as error:
            answer = "-" + str(error)
    answer = _broadcast(answer)
    if answer.startswith("-"):
        raise FedError(answer[1:])
    return answer[1:]


def any_process(reason: str | None) -> str | None:
    """Returns one reason to stop in every process, that of the first that has one.

    Args:
      reason: of this process, at most 200 bytes; ``None`` if it has none.

    >>> from fedjax_sim.runtime.processes import any_process
    >>> any_process("interrupted")
    'interrupted'
    """
    if not several():
        return reason
    padded = (reason or "").encode()[:REASON_BYTES].ljust(REASON_BYTES, b"\0")
    gathered = multihost_utils.process_allgather(np.frombuffer(padded, np.uint8))
    rows = np.asarray(gathered).reshape(-1, REASON_BYTES).astype(np.uint8)
    reasons = (row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in rows)
    return next(filter(None, reasons), None)


@contextlib.contextmanager
def exit_if_peer_lost(again: Callable[[], str]) -> Iterator[None]:
    """While open, the death of another process ends this one with a message and exit status 3.

    Args:
      again: ``() -> text``, what the user should do then.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not several() or not _is_lost_peer(error):
            raise
        print(
            sentence("another process of this run has died", got=_first_line(error), fix=again()),
            file=sys.stderr,
            flush=True,
        )
        # os._exit, because a normal exit blocks in JAX's shutdown barrier, waiting for the dead
        # process.
        os._exit(GONE)


def _broadcast(text: str) -> str:
    """Returns the first process's text in every process."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text.encode()))))
    padded = np.zeros(length, np.uint8)
    if is_main_process():
        padded[:] = np.frombuffer(text.encode(), np.uint8)
    sent = np.asarray(multihost_utils.broadcast_one_to_all(padded))
    return sent.astype(np.uint8).tobytes().decode()


def _is_lost_peer(error: BaseException) -> bool:
    """Returns True if an error is that of a failed collective."""
    words = ("Gloo", "NCCL", "Connection", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat", "peer")
    return any(word in str(error) for word in words)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:160]
