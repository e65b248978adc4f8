"""Rows read ahead of rounds and written behind them, with the same result as doing everything in
order.

One worker thread runs all reads and writes in the order of the calls, so what it reads is what a
sequence of reads and writes would have read. Rows that a round is using are not read ahead: they
are copied from what that round delivers, before it is written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
import numpy as np

from fedjax_sim.core.errors import require
from fedjax_sim.core.types import PyTree

NO_CLIENTS = np.zeros(0, np.int64)


class Rows(Protocol):
    """The part of a row store that a prefetcher uses."""

    def read(self, ids: Any) -> PyTree:
        """Returns the rows ``[k, ...]`` of clients."""

    def write(self, ids: Any, rows: PyTree) -> None:
        """Writes the rows ``[k, ...]`` of clients."""


def open_pipeline(store: Rows, clients: int) -> RowPrefetcher:
    """Starts a worker thread for a row store.

    If the store is restored, reads and writes in progress are invalid: close the prefetcher and
    open another.

    Args:
      store: where rows are read and written.
      clients: N.

    Raises:
      FedError: by the prefetcher's methods: for errors of the store, and for calls in the wrong
        order.

    >>> import tempfile
    >>> import numpy as np
    >>> from fedjax_sim.engine.host.rows import open_row_store
    >>> with (
    ...     tempfile.TemporaryDirectory() as folder,
    ...     open_row_store(folder, np.zeros(1), 10) as store,
    ... ):
    ...     with open_pipeline(store, 10) as prefetcher:
    ...         prefetcher.prefetch([1, 2])
    ...         rows = prefetcher.take()
    ...         prefetcher.prefetch([2, 3])
    ...         prefetcher.deliver([1, 2], rows + 1)
    ...         following = prefetcher.take()
    >>> following.tolist()
    [[1.0], [0.0]]
    """
    return RowPrefetcher(store, clients)


class RowPrefetcher:
    """Reads rows ahead of rounds and writes them behind, opened by :func:`open_pipeline`.

    Not thread-safe.

    A cohort's rows are *in use* from :meth:`take` until they are delivered. An error of the worker
    is raised by the next call, once, and that call does nothing else. If rows could not be read,
    the prefetched cohort is discarded. Rows that could not be written cannot be prefetched until
    they are delivered again.
    """

    def __init__(self, store: Rows, clients: int) -> None:
        self.store = store
        self.clients = clients
        self._worker = ThreadPoolExecutor(1, "fedjax_sim-rows")
        self._tasks: deque[Future] = deque()  # whose errors have not been raised yet
        # Those of the tasks that make the next cohort's rows: the first reads them, the others
        # replace the rows that a round has delivered since.
        self._ahead: list[Future] = []
        self._ids = NO_CLIENTS  # the next cohort
        self._awaited = NO_CLIENTS  # bool[k], whose rows have yet to be delivered
        self._in_use = NO_CLIENTS
        self._unwritten = NO_CLIENTS  # clients whose rows could not be written; the worker's own

    def __enter__(self) -> RowPrefetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prefetch(self, ids: Any) -> None:
        """Begins to read the rows of the next cohort. One cohort at a time.

        Args:
          ids: int[k]; N or more for absent clients.
        """
        self._raise_error()
        require(
            not self._ahead,
            "one cohort is prefetched at a time",
            got="a second one",
            fix="take the first one before",
        )
        self._ids = np.array(ids)
        self._awaited = np.isin(self._ids, self._in_use)
        readable = np.where(self._awaited, self.clients, self._ids)
        self._ahead = [self._submit(self._read, readable)]

    def deliver(self, ids: Any, rows: PyTree) -> None:
        """Passes a round's rows on to the next cohort, for clients in both, and to the store.

        Args:
          ids: int[k]; rows of absent clients (N or more) are ignored.
          rows: ``[k, ...]`` in every leaf. The worker waits for arrays of JAX; arrays of numpy must
            not change any more.
        """
        self._raise_error()
        ids = np.array(ids)
        self._in_use = np.setdiff1d(self._in_use, ids)
        if self._ahead:
            to_host = self._pass_on(ids, rows)
            self._ahead.append(to_host)
        else:
            to_host = self._submit(self._to_host, rows, None, [], [])
        self._submit(self._write, ids[ids < self.clients], ids, to_host)

    def take(self) -> PyTree:
        """Returns the prefetched cohort's rows.

        None of them may be in use any more. Waits for reading, not for writing.

        Returns:
          The rows, ``[k, ...]`` in every leaf, up to date; the caller may change them.
        """
        futures.wait(self._ahead)
        self._raise_error()
        require(
            bool(self._ahead),
            "no rows to take",
            got="no prefetch before",
            fix="prefetch a cohort first",
        )
        require(
            not self._awaited.any(),
            "rows of the next cohort are still in use",
            got=self._ids[self._awaited][:8],
            fix="deliver the running round's rows first",
        )
        rows = self._ahead[0].result()
        self._ahead = []
        self._in_use = np.union1d(self._in_use, self._ids[self._ids < self.clients])
        return rows

    def wait(self) -> None:
        """Waits until all delivered rows are in the store, as its ``snapshot`` requires."""
        futures.wait(self._tasks)
        self._raise_error()

    def close(self) -> None:
        """Waits until all rows are in the store, and ends the worker. The store stays open."""
        self._worker.shutdown()
        self._raise_error()

    def _pass_on(self, ids: np.ndarray, rows: PyTree) -> Future:
        """Submits the copy of delivered rows to the prefetched cohort's."""
        delivered = {
            client: place for place, client in enumerate(ids.tolist()) if client < self.clients
        }
        targets = [place for place, client in enumerate(self._ids.tolist()) if client in delivered]
        sources = [delivered[client] for client in self._ids[targets].tolist()]
        self._awaited[targets] = False
        return self._submit(self._to_host, rows, self._ahead[0], targets, sources)

    def _submit(self, action: Callable[..., Any], *arguments: Any) -> Future:
        self._tasks.append(self._worker.submit(action, *arguments))
        return self._tasks[-1]

    def _raise_error(self) -> None:
        """Removes finished tasks, up to the first one that failed, and raises its error."""
        while self._tasks and self._tasks[0].done():
            task = self._tasks.popleft()
            if task.exception() and task in self._ahead:
                self._ahead = []
            task.result()

    # The worker's functions -----------------------------------------------------------------------

    def _read(self, ids: np.ndarray) -> PyTree:
        unwritten = np.intersect1d(ids, self._unwritten)
        require(
            not unwritten.size,
            "the next cohort has clients whose rows could not be written",
            got=unwritten[:8],
            fix="deliver them again",
        )
        return self.store.read(ids)

    def _to_host(
        self, rows: PyTree, ahead: Future | None, targets: list[int], sources: list[int]
    ) -> PyTree:
        """Returns delivered rows as numpy arrays, after copying some to the next cohort's rows."""
        rows = jax.tree.map(np.asarray, rows)
        if targets and ahead is not None and not ahead.exception():
            following = jax.tree.leaves(ahead.result())
            for following_leaf, leaf in zip(following, jax.tree.leaves(rows), strict=True):
                following_leaf[targets] = leaf[sources]
        return rows

    def _write(self, present: np.ndarray, ids: np.ndarray, to_host: Future) -> None:
        self._unwritten = np.union1d(self._unwritten, present)  # until they are written
        if not to_host.exception():
            self.store.write(ids, to_host.result())
            self._unwritten = np.setdiff1d(self._unwritten, present)
