"""Rows fetched and put away behind the rounds, with the result of doing everything in order.

One worker does what it is told in the order in which it is told, so what it reads is what a sequence of reads and writes would have
read. Rows that are out with a round are not read: they come with what that round brings back, before it is written.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.errors import require
from fedjax_sim.core.types import PyTree
from fedjax_sim.engine.host.rows.store import Vault


class Pipeline(NamedTuple):
    """Reads ahead of rounds and writes behind them, made by :func:`open_pipeline`. To be called from one thread.

    A cohort's rows are *out* from ``take`` until they are delivered. An error of the worker is raised by the next call, once, and that
    call does nothing else. Where rows could not be read, that cohort is void; what could not be written is refused to later cohorts
    until it is delivered again.
    """

    prefetch: Callable[[Any], None]
    """``ids int64[k] -> None``: begins to read the rows of the next cohort. One cohort at a time."""
    deliver: Callable[[Any, PyTree], None]
    """``(ids int64[k], rows [k, ...]) -> None``: what a round brought back goes to the next cohort's rows, if clients are in both, and
    to the vault. Arrays of JAX's are waited for by the worker; arrays of numpy's must not change any more."""
    take: Callable[[], PyTree]
    """``() -> rows [k, ...]`` of the prefetched ids, up to date, the caller's own. None of them may be out any more. Waits for reading,
    and not for writing."""
    wait: Callable[[], None]
    """``() -> None``: returns when everything delivered is in the vault. To be called before its ``snapshot``."""
    close: Callable[[], None]
    """``() -> None``: the same, and the worker ends. The vault stays open."""


def open_pipeline(vault: Vault, clients: int) -> Pipeline:
    """A worker for a vault of so many clients (N). Where the vault is restored, what is under way is void: close this, open another.

    Raises:
      FedError: by its functions, for what the vault's raise, and for calls that are out of turn.
    """
    line = _Line(vault, clients, ThreadPoolExecutor(1, "fedjax_sim-vault"))
    return Pipeline(
        *(partial(function, line) for function in (_prefetch, _deliver, _take, _wait, _close))
    )


def _nobody() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclasses.dataclass
class _Line:
    """What is under way. All of it is the caller's, but for what the worker has lost."""

    vault: Vault
    clients: int
    worker: ThreadPoolExecutor
    tasks: deque[Future] = dataclasses.field(default_factory=deque)
    """What the worker was told, until its errors were heard."""
    ahead: list[Future] = dataclasses.field(default_factory=list)
    """Those of the tasks that make the next cohort's rows: the first one brings them, the others change them."""
    ids: np.ndarray = dataclasses.field(default_factory=_nobody)
    """The next cohort."""
    lacks: np.ndarray = dataclasses.field(default_factory=_nobody)
    """bool[k], whose rows have yet to be delivered."""
    out: np.ndarray = dataclasses.field(default_factory=_nobody)
    """Clients whose rows are out."""
    lost: np.ndarray = dataclasses.field(default_factory=_nobody)
    """Clients whose rows could not be written."""


def _prefetch(line: _Line, ids: Any) -> None:
    _hear(line)
    require(
        not line.ahead,
        "one cohort is prefetched at a time",
        got="a second one",
        fix="take the first one before",
    )
    line.ids = np.array(ids)
    line.lacks = np.isin(line.ids, line.out)
    line.ahead = [_tell(line, _fetch, np.where(line.lacks, line.clients, line.ids))]


def _deliver(line: _Line, ids: Any, rows: PyTree) -> None:
    _hear(line)
    ids = np.array(ids)
    line.out = np.setdiff1d(line.out, ids)
    if not line.ahead:
        filled = _tell(line, _fill, rows, None, [], [])
    else:
        places = {
            client: place for place, client in enumerate(ids.tolist()) if client < line.clients
        }
        here = [place for place, client in enumerate(line.ids.tolist()) if client in places]
        line.lacks[here] = False
        filled = _tell(
            line,
            _fill,
            rows,
            line.ahead[0],
            here,
            [places[client] for client in line.ids[here].tolist()],
        )
        line.ahead.append(filled)
    _tell(line, _store, ids[ids < line.clients], ids, filled)


def _take(line: _Line) -> PyTree:
    futures.wait(line.ahead)
    _hear(line)
    require(
        bool(line.ahead), "no rows to take", got="no prefetch before", fix="prefetch a cohort first"
    )
    what, do = (
        "the next cohort has clients whose rows are out",
        "deliver the running round's rows first",
    )
    require(not line.lacks.any(), what, got=line.ids[line.lacks][:8], fix=do)
    rows, line.ahead = line.ahead[0].result(), []
    line.out = np.union1d(line.out, line.ids[line.ids < line.clients])
    return rows


def _wait(line: _Line) -> None:
    futures.wait(line.tasks)
    _hear(line)


def _close(line: _Line) -> None:
    line.worker.shutdown()
    _hear(line)


def _tell(line: _Line, action: Callable[..., Any], *arguments: Any) -> Future:
    line.tasks.append(line.worker.submit(action, line, *arguments))
    return line.tasks[-1]


def _hear(line: _Line) -> None:
    """Forgets tasks that are done, up to the first one that failed, and raises its error."""
    while line.tasks and line.tasks[0].done():
        task = line.tasks.popleft()
        if task.exception() and task in line.ahead:
            line.ahead = []
        task.result()


# ------------------------------------------------------------------------------------------------------------- the worker


def _fetch(line: _Line, ids: np.ndarray) -> PyTree:
    lost = np.intersect1d(ids, line.lost)
    require(
        not lost.size,
        "the next cohort has clients whose rows could not be written",
        got=lost[:8],
        fix="deliver them again",
    )
    return line.vault.read(ids)


def _fill(
    line: _Line, rows: PyTree, ahead: Future | None, here: list[int], there: list[int]
) -> PyTree:
    """The rows on the host, and on their way the ones that the next cohort has, too."""
    rows = jax.tree.map(np.asarray, rows)
    if here and ahead is not None and not ahead.exception():
        for place, row in zip(jax.tree.leaves(ahead.result()), jax.tree.leaves(rows), strict=True):
            place[here] = row[there]
    return rows


def _store(line: _Line, present: np.ndarray, ids: np.ndarray, filled: Future) -> None:
    line.lost = np.union1d(line.lost, present)  # until they are written
    if not filled.exception():
        line.vault.write(ids, filled.result())
        line.lost = np.setdiff1d(line.lost, present)
