"""Several processes, one run: who writes, who is told, and what happens when one of them is gone.

Every process runs the same program on its own devices (JAX's way); the first one alone writes, shows and speaks. In a single process
all of this is nothing.
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
"""Exit status of a process whose run ended because another one has gone."""
HEARTBEAT = 30
"""Seconds after which one that says nothing is taken to have gone, where no connection to it broke before."""

WISH = 200
"""Bytes of a wish that all are told."""


def join(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Becomes one of several processes. To be called before anything runs on JAX.

    Args:
      coordinator: ``host:port`` of the first process; without it, JAX finds out by itself on SLURM, Kubernetes, Cloud TPU and Open MPI.
      processes: how many there are.
      process_id: which of them this is, from 0.

    Raises:
      FedError: where the three do not go together, or nobody answers.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process-id": process_id}
    missing = [name for name, value in given.items() if value is None]
    what = "several processes need --coordinator HOST:PORT, --processes N and --process-id I"
    do = "give all three, or --distributed alone on a cluster that JAX knows"
    require(len(missing) in (0, 3), what, got=f"no {' and no '.join(missing)}", fix=do)
    if processes is not None and process_id is not None:
        require(
            0 <= process_id < processes,
            "--process-id must be from 0 to --processes - 1",
            got=f"{process_id} of {processes}",
            fix="number them anew",
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator, processes, process_id, heartbeat_timeout_seconds=HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        got = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        do = "start all processes with the same --coordinator, a free port of the first one's host"
        raise FedError(sentence("the processes did not come together", got=got, fix=do)) from error


def several() -> bool:
    """Whether this run has more than one process."""
    return jax.process_count() > 1


def is_main_process() -> bool:
    """Whether this is the process that writes and speaks."""
    return jax.process_index() == 0


def run_on_main(work: Callable[[], str]) -> str:
    """What the first process found out, on every process; its :class:`FedError` is raised on every one, too."""
    if not several():
        return work()
    answer = ""
    if is_main_process():
        try:
            answer = "+" + work()
        except FedError as error:
            answer = "-" + str(error)
    said = _told(answer)
    if said.startswith("-"):
        raise FedError(said[1:])
    return said[1:]


def any_process(wish: str | None) -> str | None:
    """A wish of any process to end the run, as everybody's: that of the first process that has one."""
    if not several():
        return wish
    mine = np.frombuffer((wish or "").encode()[:WISH].ljust(WISH, b"\0"), np.uint8)
    wishes = np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, WISH).astype(np.uint8)
    return next(
        (said for each in wishes if (said := each.tobytes().rstrip(b"\0").decode(errors="ignore"))),
        None,
    )


@contextlib.contextmanager
def exit_if_peer_lost(again: Callable[[], str]) -> Iterator[None]:
    """While open, the loss of another process ends this one with one sentence.

    Args:
      again: what to do then, in words.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not several() or not _lost(error):
            raise
        print(
            sentence("another process of this run has gone", got=_first(error), fix=again()),
            file=sys.stderr,
            flush=True,
        )
        # Not the usual way out: on it JAX waits for the one that will not come.
        os._exit(GONE)


def _told(text: str) -> str:
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text.encode()))))
    padded = np.zeros(length, np.uint8)
    if is_main_process():
        padded[:] = np.frombuffer(text.encode(), np.uint8)
    return (
        np.asarray(multihost_utils.broadcast_one_to_all(padded)).astype(np.uint8).tobytes().decode()
    )


def _lost(error: BaseException) -> bool:
    """Whether an error says that a collective did not come about."""
    words = ("Gloo", "NCCL", "Connection", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat", "peer")
    return any(word in str(error) for word in words)


def _first(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:160]
