"""Client memory that stays on the host: a round's rows are copied to the devices, and written back
while the next round runs.

The state of such a program contains no client memory: the row store holds that of one round.
Checkpoints hold a description of the row store's snapshot in its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fedjax_sim.core.errors import FedError, fail, require
from fedjax_sim.core.types import Outcome, PyTree, RoundState
from fedjax_sim.engine.devices.backends import Backend
from fedjax_sim.engine.host.examples import CohortLoader, LoadedCohort, SampledCohort
from fedjax_sim.engine.host.rows import (
    Description,
    RowPrefetcher,
    RowStore,
    open_pipeline,
    open_row_store,
)
from fedjax_sim.engine.nonfinite import NonFinitePolicy
from fedjax_sim.engine.plan import Plan


def make_host_memory(plan: Plan, backend: Backend, clients: int) -> HostMemory:
    """Creates the client memory of a program. It is not initialised: see :meth:`HostMemory.begin`.

    Args:
      plan: whose devices train the clients.
      backend: of that plan.
      clients: N.

    Raises:
      FedError: if the program runs on several processes.
    """
    require(
        len(plan.local_devices) == len(plan.devices),
        "client memory on the host needs a single process",
        got="several",
        fix="use engine.client_memory = 'device'",
        setting="engine.client_memory",
    )
    return HostMemory(plan, backend, clients)


class HostMemory:
    """A program's client memory on the host, created by :func:`make_host_memory`. Not thread-safe.

    A round calls :meth:`fetch`, then :meth:`prefetch` for the next cohort once it runs, then
    :meth:`store`, or :meth:`cancel` if the round failed.

    Attributes:
      round: rounds whose results are in the row store or on their way there.
    """

    def __init__(self, plan: Plan, backend: Backend, clients: int) -> None:
        self.plan = plan
        self.backend = backend
        self.clients = clients
        self.round = 0
        self._folder: Path | None = None  # chosen by the user
        self._rows: RowStore | NoRows | None = None
        self._prefetcher: RowPrefetcher | None = None
        self._prefetched: np.ndarray | None = None  # the clients whose rows are being read ahead
        self._resources = contextlib.ExitStack()
        weakref.finalize(self, self._resources.close)

    def __enter__(self) -> HostMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finishes writing and releases the folder; a temporary folder is removed."""
        self._resources.close()
        self._prefetcher = None
        self._rows = None

    def use(self, folder: str | Path) -> None:
        """Sets the folder of the rows; a temporary folder otherwise.

        To be called before ``program.init``.
        """
        self.close()
        self._folder = Path(folder)

    def begin(self, row: PyTree) -> None:
        """Initialises the memory: every client has this row.

        Args:
          row: one client's memory before its first round, numpy arrays.
        """
        self.close()
        folder = self._folder
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="fedjax_sim-memory-"))
            self._resources.callback(shutil.rmtree, folder, ignore_errors=True)
        has_leaves = bool(jax.tree.leaves(row))
        self._rows = open_row_store(folder, row, self.clients) if has_leaves else NoRows(row)
        self._resources.callback(self._rows.close)
        self._restart(0)

    def fetch(self, state: RoundState, cohort: SampledCohort) -> PyTree:
        """Returns the rows of a round's clients on the devices.

        Args:
          state: the state before the round.
          cohort: the cohort of the round.

        Returns:
          The memory of every place in the shards, device by device.

        Raises:
          FedError: if the rows are those of another round than the state.
        """
        at = int(np.asarray(state.round))
        ids = clients_in_shard_order(cohort)
        require(
            at == self.round,
            "client memory and state must be from the same round",
            got=f"client memory from round {self.round}, but a state from round {at}",
            fix=f"continue from the state of round {self.round}, "
            f"or restore a checkpoint of round {at}",
        )
        if self._prefetched is not None and not np.array_equal(self._prefetched, ids):
            self._restart(at)
        prefetcher = self._open_prefetcher()
        if self._prefetched is None:
            prefetcher.prefetch(ids)
        self._prefetched = None
        return self._to_devices(prefetcher.take())

    def prefetch(self, following: SampledCohort | None) -> None:
        """Begins to read the rows of the next round's clients, while a round runs.

        Args:
          following: the next cohort, if it is known already.
        """
        if following is not None:
            self._prefetched = clients_in_shard_order(following)
            self._open_prefetcher().prefetch(self._prefetched)

    def store(self, cohort: SampledCohort, memory: PyTree) -> None:
        """Writes the rows that a round returns, once it is over, and counts the round.

        Args:
          cohort: the cohort of the round.
          memory: their rows on the devices, as :meth:`fetch` gave them out.
        """
        if self.plan.backend == "pmap":
            memory = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), memory)
        self._open_prefetcher().deliver(clients_in_shard_order(cohort), memory)
        self.round += 1

    def cancel(self) -> None:
        """Discards the round that rows were fetched for: the memory is as it was before."""
        self._restart(self.round)

    def fetch_to_devices(self, ids: Any) -> PyTree:
        """Returns clients' rows, up to date, on the devices in equal blocks.

        Args:
          ids: int64[D * k] for D replicas.
        """
        return self._to_devices(self.read(ids))

    def read(self, ids: Any) -> PyTree:
        """Returns clients' rows ``[k, ...]``, up to date, on the host.

        Args:
          ids: int64[k].
        """
        self._open_prefetcher().wait()
        return self._open_rows().read(ids)

    def snapshot(self) -> Description:
        """Saves a snapshot of all rows durably.

        Returns:
          Its description, ready for JSON, to be kept in the metadata of this round's checkpoint.
        """
        self._open_prefetcher().wait()
        return self._open_rows().snapshot(self.round)

    def restore(self, description: Description) -> None:
        """Restores all rows, and the round, of a snapshot.

        Args:
          description: what :meth:`snapshot` returned.
        """
        valid = isinstance(description, dict) and isinstance(description.get("round"), int)
        require(
            valid,
            "this does not describe a snapshot of client memory",
            got=description,
            fix="restore another checkpoint",
        )
        self._open_rows().restore(description)
        self._restart(int(description["round"]))

    def retain(self, rounds: Iterable[int]) -> None:
        """Removes the snapshots of all other rounds."""
        self._open_rows().keep(rounds)

    def _to_devices(self, rows: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(rows)
        if not leaves:
            return rows
        splits = (np.split(np.ascontiguousarray(leaf), self.plan.replicas) for leaf in leaves)
        blocks = [jax.tree.unflatten(structure, block) for block in zip(*splits, strict=True)]
        return self.backend.deal(blocks, memory=True)

    def _restart(self, round: int) -> None:
        """Replaces the prefetcher by one without work in progress."""
        if self._prefetcher is not None:
            _close_quietly(self._prefetcher)
        self._prefetcher = open_pipeline(self._open_rows(), self.clients)
        self.round = round
        self._prefetched = None
        self._resources.callback(_close_quietly, self._prefetcher)

    def _open_rows(self) -> RowStore | NoRows:
        return self._rows if self._rows is not None else _not_initialised()

    def _open_prefetcher(self) -> RowPrefetcher:
        return self._prefetcher if self._prefetcher is not None else _not_initialised()


class NoRows:
    """The row store of clients without memory."""

    def __init__(self, row: PyTree) -> None:
        self.row = row  # has no leaves

    def read(self, ids: Any) -> PyTree:  # noqa: ARG002
        """Returns the row without leaves."""
        return self.row

    def write(self, ids: Any, rows: PyTree) -> None:
        """Writes nothing."""

    def snapshot(self, round: int) -> Description:
        """Returns a description that holds the round alone."""
        return {"round": round}

    def restore(self, description: Description) -> None:
        """Restores nothing."""

    def keep(self, rounds: Iterable[int]) -> None:
        """Removes nothing."""

    def close(self) -> None:
        """Releases nothing."""


def run_with_host_memory(
    memory: HostMemory,
    loader: CohortLoader,
    policy: NonFinitePolicy,
    advance: Callable,
    state: RoundState,
    loaded: LoadedCohort,
) -> tuple[RoundState, Outcome]:
    """Runs one round whose client memory is on the host, and begins to prepare the next.

    Args:
      memory: of the program; unchanged if the round fails or is rejected.
      loader: packs the next cohort's examples while this round runs.
      policy: for results that are not finite; if it can reject the round, this function waits until
        the round is over.
      advance: the compiled round, ``(state, inputs) -> (state, outcome)``.
      state: before the round, without memory.
      loaded: this round's inputs, from ``loader``.

    Returns:
      The state after the round, without memory, and the outcome.
    """
    at = int(np.asarray(state.round))
    rows = memory.fetch(state, loaded.cohort)
    try:
        after, outcome = advance(dataclasses.replace(state, memory=rows), loaded.inputs)
    except BaseException:
        memory.cancel()
        raise
    loader.prepare(after)
    memory.prefetch(loaded.following)
    rejected = policy.can_reject and int(np.asarray(after.round)) == at
    if rejected:
        memory.cancel()
    else:
        memory.store(loaded.cohort, after.memory)
    return dataclasses.replace(after, memory=()), outcome


def clients_in_shard_order(cohort: SampledCohort) -> np.ndarray:
    """Returns the client of each place in the shards, device by device.

    Returns:
      int64[S * Q]; N for a place without a client that takes part.
    """
    places = cohort.places.reshape(-1)
    rows = np.minimum(places, len(cohort.roster.id) - 1)
    present = (places < len(cohort.roster.id)) & (cohort.roster.steps[rows] > 0)
    return np.where(present, cohort.roster.id[rows], cohort.roster.population).astype(np.int64)


def _close_quietly(prefetcher: RowPrefetcher) -> None:
    with contextlib.suppress(FedError):  # about rows that are discarded
        prefetcher.close()


def _not_initialised() -> Any:
    fail(
        "client memory is not initialised",
        got="no state from program.init",
        fix="call program.init before program.run, also before continuing from a checkpoint",
    )
