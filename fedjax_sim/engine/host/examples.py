"""Examples that stay on the host: each round's cohort is packed for the devices that train it, while the round before runs.

The host samples the cohort and deals it before the round begins, so each device is brought the examples of its own clients alone, and
each process reads those of its own devices alone. Buffers come in few sizes, since every size is a program of its own.
"""

from __future__ import annotations

import dataclasses
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

SPARE, GROWTH = 1.25, 1.3
"""The smallest buffer over the expected cohort, and each over the one before it."""


AT_ONCE = 64
"""Runs of rows that are looked at before the process lets go of them."""


class SampledCohort(NamedTuple):
    """Who takes part in a round, and where."""

    roster: Roster
    sampler: PyTree
    """The sampler's state after it chose."""
    places: Array
    """int32[S, Q], each shard's rows of the roster; C where there is none."""


class RoundInputs(NamedTuple):
    """What the host brings to a round."""

    cohort: SampledCohort
    table: Table
    """On each device that of its own clients."""


LAYOUT = RoundInputs(WHOLE, BLOCKS)  # type: ignore[arg-type]
"""How it lies on the devices."""

Sample = Callable[[PopulationInfo, Any, Any, PyTree], SampledCohort]
"""``(info, seed, round, sampler state) -> order``."""


class LoadedCohort(NamedTuple):
    """One round's supply, on the devices, and what the host knows of it."""

    inputs: RoundInputs
    cohort: SampledCohort
    """The supply's, in numpy."""
    following: SampledCohort | None
    """The next round's, where it does not hang on how this one goes."""


class CohortLoader(NamedTuple):
    """The host's side of a program's rounds. Made by :func:`make_cohort_loader`."""

    take: Callable[[RoundState], LoadedCohort]
    """What the round after this state needs: packed already, or now."""
    prepare: Callable[[RoundState], None]
    """Told the state that a round just begun will leave: packs for the round after it, behind."""


@dataclasses.dataclass
class _Desk:
    """The one mutable thing here: what is being packed, and where."""

    pending: tuple[tuple[int, int, list[Any]], Future[LoadedCohort]] | None = None
    taken: tuple[int, int] = (0, 0)
    """Seed and round of the supply taken last."""
    buffers: list[list[PyTree]] = dataclasses.field(default_factory=lambda: [[], []])
    """Two sets, one for the round that runs and one for the next."""


def make_cohort_loader(
    sample: Sample, facts: PopulationInfo, data: Population, plan: Plan, backend: Backend
) -> CohortLoader:
    """A supplier of a population's examples.

    Args:
      sample: traced.
      facts: its first argument.
      data: on the host, memory-mapped where it is large.
      plan: whose devices and shards.
      backend: of that plan.
    """
    desk, worker = _Desk(), ThreadPoolExecutor(1, thread_name_prefix="supply")
    # On a device of this process alone: every process samples, and all of them the same.
    facts, sampled = jax.device_put(facts, plan.local_devices[0]), jax.jit(sample)

    def ask(seed: int, round: int, sampler: PyTree) -> SampledCohort:
        return jax.tree.map(
            np.asarray,
            sampled(facts, np.uint32(seed), np.int32(round), jax.tree.map(np.asarray, sampler)),
        )

    def make(seed: int, round: int, sampler: PyTree) -> LoadedCohort:
        order = ask(seed, round, sampler)
        hands, width = clients_by_device(order, plan.replicas), order.places.size // plan.replicas
        capacity = bucket(most_examples(data, hands), data, width)
        blocks = pack(data, plan, hands, width, capacity, desk.buffers[round % 2])
        supply = jax.block_until_ready(RoundInputs(backend.share(order), backend.deal(blocks)))
        return LoadedCohort(
            supply, order, None if jax.tree.leaves(sampler) else ask(seed, round + 1, sampler)
        )

    def take(state: RoundState) -> LoadedCohort:
        # Reading the round waits for the one before, whose buffers are free from then on.
        seed, round, leaves = (
            int(np.asarray(state.seed)),
            int(np.asarray(state.round)),
            jax.tree.leaves(state.sampler),
        )
        (wanted, ready), desk.pending, desk.taken = (
            desk.pending or (None, None),
            None,
            (seed, round),
        )
        if wanted and ready:
            parcel = ready.result()
            if wanted[:2] == (seed, round) and _same(wanted[2], leaves):
                return parcel
        return make(seed, round, state.sampler)

    def prepare(state: RoundState) -> None:
        seed, round = desk.taken[0], desk.taken[1] + 1
        desk.pending = (
            (seed, round, jax.tree.leaves(state.sampler)),
            worker.submit(make, seed, round, state.sampler),
        )

    return CohortLoader(take, prepare)


def _same(mine: Sequence[Any], theirs: Sequence[Any]) -> bool:
    return len(mine) == len(theirs) and all(a is b for a, b in zip(mine, theirs, strict=True))


# ---------------------------------------------------------------------------------------------------------------- packing


def clients_by_device(order: SampledCohort, devices: int) -> list[np.ndarray]:
    """Of each device the clients that it trains: int[k], ascending."""
    return [device_clients(order.roster, block) for block in np.split(order.places, devices)]


def most_examples(data: Population, hands: Sequence[np.ndarray]) -> int:
    """Examples of the hand that has most."""
    return max(int(sizes_of(data, ids).sum()) for ids in hands)


def pack(
    data: Population,
    plan: Plan,
    hands: Sequence[np.ndarray],
    width: int,
    capacity: int,
    buffers: list[PyTree],
) -> list[Table]:
    """The examples of this process's devices' clients, a table for each device.

    Args:
      data: the population.
      plan: whose devices.
      hands: each device's clients, ascending.
      width: places for clients in each table.
      capacity: rows for examples in each table.
      buffers: of an earlier call whose tables are not needed any more; used again, or replaced where they are of another size.
    """
    mine = [
        number
        for number in range(plan.replicas)
        if plan.devices[number * plan.devices_per_client] in plan.local_devices
    ]
    if not buffers or jax.tree.leaves(buffers[0])[0].shape[0] != capacity:
        buffers[:] = [_blank((data.x, data.y), capacity) for _ in mine]
    return [
        fill(data, hands[number], width, buffer)
        for number, buffer in zip(mine, buffers, strict=True)
    ]


def device_clients(roster: Roster, places: np.ndarray) -> np.ndarray:
    """int[k], ascending: the clients that these shards train."""
    seats = places[places < len(roster.id)]
    return np.unique(
        roster.id[seats[(roster.id[seats] < roster.population) & (roster.steps[seats] > 0)]]
    )


def sizes_of(data: Population, ids: np.ndarray) -> np.ndarray:
    """int64[k], examples of these clients."""
    return data.offsets[ids + 1] - data.offsets[ids]


def bucket(needed: int, data: Population, clients: int) -> int:
    """Rows of the smallest buffer that holds so many: few sizes serve all rounds, each a little larger than the one before."""
    rows = int(data.offsets[-1])
    expected = max(1.0, SPARE * clients * rows / data.clients)
    larger = max(0, math.ceil(math.log(max(needed, 1) / expected, GROWTH)))
    return max(needed, min(rows, math.ceil(expected * GROWTH**larger)))


def fill(data: Population, ids: np.ndarray, width: int, buffer: PyTree) -> Table:
    """The table of these clients, at most ``width`` of them, with the rows in the buffer."""
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
    filled: Any = (
        np.pad(row.astype(np.int32), spare, constant_values=end)
        for row, end in ((ends - sizes, 0), (sizes, 0), (ids, data.clients))
    )
    return Table(x, y, *filled)


def _copy(out: np.ndarray, leaf: np.ndarray, runs: list[tuple[int, int]]) -> None:
    """Runs of rows, one behind the other, some at a time: where the system keeps a file in large pages, each run brings a whole one."""
    place = 0
    for first in range(0, len(runs), AT_ONCE):
        with visiting(leaf, some := runs[first : first + AT_ONCE]):
            for start, stop in some:
                out[place : (place := place + stop - start)] = leaf[start:stop]


def _runs(ids: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last place of every run of clients whose numbers, and therefore rows, follow one another."""
    breaks = np.flatnonzero(np.diff(ids) != 1)
    return (
        zip(
            np.append(0, breaks + 1).tolist(), np.append(breaks, len(ids) - 1).tolist(), strict=True
        )
        if len(ids)
        else iter(())
    )


def _blank(like: PyTree, capacity: int) -> PyTree:
    return jax.tree.map(
        lambda leaf: aligned_empty(
            (capacity, *leaf.shape[1:]), jax.dtypes.canonicalize_dtype(leaf.dtype)
        ),
        like,
    )
