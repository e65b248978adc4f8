"""Examples that stay on the host: each round's cohort is packed for its devices while the round
before runs.

The host samples the cohort and assigns it to shards before the round begins, so each device gets
the examples of its own clients alone, and each process reads those of its own devices alone.
Buffers come in few sizes, because every size compiles another program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.types import Array, PopulationInfo, PyTree, Roster, RoundState
from fedjax_sim.data.population import Population, Table
from fedjax_sim.data.prepared.mapped import visiting
from fedjax_sim.engine.devices.backends import BLOCKS, WHOLE, Backend
from fedjax_sim.engine.plan import Plan
from fedjax_sim.runtime.devices import aligned_empty

SPARE = 1.25
"""Size of the smallest buffer over that of the expected cohort."""
GROWTH = 1.3
"""Size of each buffer over that of the next smaller one."""
AT_ONCE = 64
"""Runs of rows that are read before the process releases their pages of a memory-mapped file."""


class SampledCohort(NamedTuple):
    """The clients that take part in a round, and their places in the shards."""

    roster: Roster
    sampler: PyTree
    """The sampler's state after sampling."""
    places: Array
    """int32[S, Q], the roster's row at each place of each shard; C at an empty place."""


class RoundInputs(NamedTuple):
    """Everything that the host passes to a round besides the state."""

    cohort: SampledCohort
    table: Table
    """On each device the examples of its own clients."""


LAYOUT = RoundInputs(WHOLE, BLOCKS)  # type: ignore[arg-type]
"""How the inputs lie on the devices."""

Sample = Callable[[PopulationInfo, Any, Any, PyTree], SampledCohort]
"""``(info, seed, round, sampler state) -> cohort``."""


class LoadedCohort(NamedTuple):
    """One round's inputs on the devices, and its cohort on the host."""

    inputs: RoundInputs
    cohort: SampledCohort
    """That of the inputs, numpy arrays."""
    following: SampledCohort | None
    """The next round's cohort, unless it depends on this round's result."""


class _Pending(NamedTuple):
    """A round that is being packed, and the state it is packed for."""

    seed: int
    round: int
    sampler: list[Any]
    """The leaves of the sampler's state."""
    loaded: Future[LoadedCohort]

    def is_for(self, seed: int, round: int, sampler: list[Any]) -> bool:
        return (self.seed, self.round) == (seed, round) and _identical(self.sampler, sampler)


def make_cohort_loader(
    sample: Sample, facts: PopulationInfo, data: Population, plan: Plan, backend: Backend
) -> CohortLoader:
    """Creates the loader of a population's examples.

    Args:
      sample: traced, samples a cohort and assigns it to shards.
      facts: its first argument.
      data: on the host, memory-mapped if it is large.
      plan: whose devices and shards.
      backend: of that plan.
    """
    return CohortLoader(sample, facts, data, plan, backend)


class CohortLoader:
    """Samples cohorts and packs their examples, created by :func:`make_cohort_loader`.

    Not thread-safe.

    One worker thread packs the next cohort while a round runs. It ends with :meth:`close`, or when
    the loader is collected.
    """

    def __init__(
        self, sample: Sample, facts: PopulationInfo, data: Population, plan: Plan, backend: Backend
    ) -> None:
        self.data = data
        self.plan = plan
        self.backend = backend
        # On a device of this process alone: every process samples, all with the same result.
        self._facts = jax.device_put(facts, plan.local_devices[0])
        self._sample_jitted = jax.jit(sample)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="fedjax_sim-examples")
        self._pending: _Pending | None = None
        self._taken = (0, 0)  # seed and round of the cohort taken last
        # Two sets, one for the round that runs and one for the next.
        self._buffers: list[list[PyTree]] = [[], []]

    def __enter__(self) -> CohortLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the worker thread and ends it."""
        self._worker.shutdown()
        self._pending = None

    def take(self, state: RoundState) -> LoadedCohort:
        """Returns the inputs of the round after a state, packed ahead or now.

        Raises:
          Exception: the worker's, if packing ahead failed; the next call packs again.
        """
        # Reading the round waits for the round before it, whose buffers are free from then on.
        seed = int(np.asarray(state.seed))
        round = int(np.asarray(state.round))
        pending = self._pending
        self._pending = None
        self._taken = (seed, round)
        if pending is not None:
            loaded = pending.loaded.result()
            if pending.is_for(seed, round, jax.tree.leaves(state.sampler)):
                return loaded
        return self._load(seed, round, state.sampler)

    def prepare(self, state: RoundState) -> None:
        """Begins to pack the cohort of the round after the running one.

        Args:
          state: the state that the running round will return. Only its sampler's state is read, by
            the worker.
        """
        seed = self._taken[0]
        round = self._taken[1] + 1
        loaded = self._worker.submit(self._load, seed, round, state.sampler)
        self._pending = _Pending(seed, round, jax.tree.leaves(state.sampler), loaded)

    def _sample(self, seed: int, round: int, sampler: PyTree) -> SampledCohort:
        on_host = jax.tree.map(np.asarray, sampler)
        cohort = self._sample_jitted(self._facts, np.uint32(seed), np.int32(round), on_host)
        return jax.tree.map(np.asarray, cohort)

    def _load(self, seed: int, round: int, sampler: PyTree) -> LoadedCohort:
        cohort = self._sample(seed, round, sampler)
        clients = clients_by_device(cohort, self.plan.replicas)
        width = cohort.places.size // self.plan.replicas
        capacity = bucket(most_examples(self.data, clients), self.data, width)
        buffers = self._buffers[round % 2]
        blocks = pack(self.data, self.plan, clients, width, capacity, buffers)
        inputs = RoundInputs(self.backend.share(cohort), self.backend.deal(blocks))
        jax.block_until_ready(inputs)
        has_state = bool(jax.tree.leaves(sampler))
        following = None if has_state else self._sample(seed, round + 1, sampler)
        return LoadedCohort(inputs, cohort, following)


def _identical(leaves: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(leaves) == len(others) and all(
        leaf is other for leaf, other in zip(leaves, others, strict=True)
    )


# ------------------------------------------------------------------------------------------ packing


def clients_by_device(cohort: SampledCohort, devices: int) -> list[np.ndarray]:
    """Returns the clients that each device trains.

    Args:
      cohort: numpy arrays.
      devices: among which its shards are divided equally.

    Returns:
      int[k] of each device, ascending.
    """
    return [device_clients(cohort.roster, block) for block in np.split(cohort.places, devices)]


def most_examples(data: Population, clients: Sequence[np.ndarray]) -> int:
    """Returns the largest number of examples of any device.

    Args:
      data: the population.
      clients: int[k] of each device, its clients.
    """
    return max(int(sizes_of(data, ids).sum()) for ids in clients)


def pack(
    data: Population,
    plan: Plan,
    clients: Sequence[np.ndarray],
    width: int,
    capacity: int,
    buffers: list[PyTree],
) -> list[Table]:
    """Copies the examples of the clients of this process's devices into a table for each device.

    Args:
      data: the population.
      plan: whose devices.
      clients: int[k] of each device of all processes, its clients, ascending.
      width: places for clients in each table.
      capacity: rows for examples in each table.
      buffers: of an earlier call whose tables are not needed any more; reused, or replaced if they
        are of another size.
    """
    local = [
        number
        for number in range(plan.replicas)
        if plan.devices[number * plan.devices_per_client] in plan.local_devices
    ]
    if not buffers or jax.tree.leaves(buffers[0])[0].shape[0] != capacity:
        buffers[:] = [_empty_buffer((data.x, data.y), capacity) for _ in local]
    return [
        fill(data, clients[number], width, buffer)
        for number, buffer in zip(local, buffers, strict=True)
    ]


def device_clients(roster: Roster, places: np.ndarray) -> np.ndarray:
    """Returns the clients that take part at these places.

    Args:
      roster: numpy arrays ``[C]``.
      places: int[...], rows of the roster; C at an empty place.

    Returns:
      int[k], ascending.
    """
    rows = places[places < len(roster.id)]
    present = (roster.id[rows] < roster.population) & (roster.steps[rows] > 0)
    return np.unique(roster.id[rows[present]])


def sizes_of(data: Population, ids: np.ndarray) -> np.ndarray:
    """Returns the numbers of examples of these clients, int64[k]."""
    return data.offsets[ids + 1] - data.offsets[ids]


def bucket(needed: int, data: Population, clients: int) -> int:
    """Returns the size of the smallest buffer that holds ``needed`` examples.

    Args:
      needed: examples.
      data: the population, whose mean size sets the smallest buffer.
      clients: places for clients.
    """
    rows = int(data.offsets[-1])
    expected = max(1.0, SPARE * clients * rows / data.clients)
    larger = max(0, math.ceil(math.log(max(needed, 1) / expected, GROWTH)))
    return max(needed, min(rows, math.ceil(expected * GROWTH**larger)))


def fill(data: Population, ids: np.ndarray, width: int, buffer: PyTree) -> Table:
    """Copies clients' examples into a buffer and returns the table of them.

    Args:
      data: the population.
      ids: int[k], ascending, ``k <= width``.
      width: places for clients in the table.
      buffer: ``(x, y)``, with room for all the examples; the table's own from then on.
    """
    sizes = sizes_of(data, ids)
    ends = np.cumsum(sizes)
    runs = [
        (int(data.offsets[ids[first]]), int(data.offsets[ids[last] + 1]))
        for first, last in _runs(ids)
    ]
    for out, leaf in zip(jax.tree.leaves(buffer), jax.tree.leaves((data.x, data.y)), strict=True):
        _copy(out, leaf, runs)
    spare = (0, width - len(ids))
    x, y = buffer
    columns: Any = (
        np.pad(column.astype(np.int32), spare, constant_values=blank)
        for column, blank in ((ends - sizes, 0), (sizes, 0), (ids, data.clients))
    )
    return Table(x, y, *columns)


def _copy(out: np.ndarray, leaf: np.ndarray, runs: list[tuple[int, int]]) -> None:
    """Copies runs of rows one behind the other.

    A few at a time: if the system caches a file in large pages, each run brings a whole page into
    memory.
    """
    place = 0
    for first in range(0, len(runs), AT_ONCE):
        batch = runs[first : first + AT_ONCE]
        with visiting(leaf, batch):
            for start, stop in batch:
                end = place + stop - start
                out[place:end] = leaf[start:stop]
                place = end


def _runs(ids: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields the first and last index of every run of consecutive clients."""
    if not len(ids):
        return iter(())
    breaks = np.flatnonzero(np.diff(ids) != 1)
    firsts = np.append(0, breaks + 1)
    lasts = np.append(breaks, len(ids) - 1)
    return zip(firsts.tolist(), lasts.tolist(), strict=True)


def _empty_buffer(like: PyTree, capacity: int) -> PyTree:
    return jax.tree.map(
        lambda leaf: aligned_empty(
            (capacity, *leaf.shape[1:]), jax.dtypes.canonicalize_dtype(leaf.dtype)
        ),
        like,
    )
