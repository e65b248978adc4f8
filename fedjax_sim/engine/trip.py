"""The engine's verb: broadcast, every client learns, lift, reduce, finalize."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import fold_in

from fedjax_sim.aggregators.stages import require_reducer
from fedjax_sim.core import tree
from fedjax_sim.core.types import (
    Aggregator,
    Array,
    Key,
    Learner,
    Mean,
    Member,
    Message,
    Metrics,
    Outcome,
    PyTree,
    Roster,
    Trip,
    Upload,
)
from fedjax_sim.data.batching import LocalWork, local_steps, most_steps
from fedjax_sim.data.population import Table
from fedjax_sim.engine.devices.memory_exchange import gather_rows, scatter_rows
from fedjax_sim.engine.devices.sharding import nbytes, spread
from fedjax_sim.engine.lanes import padded, queue, single_step
from fedjax_sim.engine.lanes.platform import choose_lanes, lane_mapper, pace_of, suit_platform
from fedjax_sim.engine.lanes.schedule import Deal, by_shard, to_roster_order
from fedjax_sim.engine.lanes.schedule import queue as shard_queue
from fedjax_sim.engine.nonfinite import NONFINITE, OFF, NonFinitePolicy, drop_clients
from fedjax_sim.engine.plan import AXIS, Plan
from fedjax_sim.engine.work import Reduced, Work, bind, row, shapes


class Trips(Protocol):
    """The verb as algorithms see it, bound to data and machine."""

    def __call__(
        self,
        learner: Learner,
        aggregator: Aggregator,
        key: Key,
        broadcast: Callable[[Member], Message],
        state: PyTree,
        memory: PyTree,
        roster: Roster,
        epochs: int | None = None,
    ) -> Trip:
        """One trip. ``state`` is the aggregator's; ``epochs`` replaces the roster's steps by so many whole passes."""
        ...


class Site(NamedTuple):
    """Where trips happen: the machine, the data, the local work."""

    plan: Plan
    table: Table
    local_work: LocalWork
    places: Array
    """The cohort's deal, the same for all trips of a round: a device has the examples of its own clients."""
    guard: NonFinitePolicy


def make_trips(
    plan: Plan, table: Table, local_work: LocalWork, places: Array, guard: NonFinitePolicy = OFF
) -> Trips:
    """The verb, bound. To be called inside the SPMD program of the plan's devices."""
    return partial(_trip, Site(plan, table, local_work, places, guard))


def within(local_work: LocalWork, limit: int, roster: Roster) -> Roster:
    """The roster with nobody's steps beyond the local work of a client of ``limit`` examples."""
    return roster._replace(steps=jnp.minimum(roster.steps, most_steps(local_work, limit)))


def _trip(
    site: Site,
    learner: Learner,
    aggregator: Aggregator,
    key: Key,
    broadcast: Callable[[Member], Message],
    state: PyTree,
    memory: PyTree,
    roster: Roster,
    epochs: int | None = None,
) -> Trip:
    require_reducer(aggregator)
    homework, crew = assign(site.local_work, site.plan.limit, roster, epochs)
    bound = most_steps(homework, site.plan.limit)
    work = bind(
        learner,
        aggregator,
        fold_in(key, 0),
        broadcast,
        state,
        site.table,
        homework,
        site.plan.limit,
        bound,
        site.guard,
    )
    dealt = by_shard(crew, site.places)
    groups, lent = site.plan.replicas, site.plan.client_memory == "host"
    loan = gather_rows(memory, dealt.members.id, groups, lent)
    reduced = run_shards(
        site.plan, work, dealt, loan.table, loan.slots, gaps=roster.dropped is not None
    )
    memory = scatter_rows(
        memory,
        loan._replace(table=reduced.table),
        dealt.members.id,
        groups,
        roster.population,
        lent,
    )
    upload, stats, clients, lost = collect(
        site.plan, work.reduce, dealt, reduced, roster.id.shape[0]
    )
    upload, state, metrics = aggregator.finalize(fold_in(key, 1), state, upload, stats)
    anchor = jax.eval_shape(broadcast, jax.tree.map(lambda leaf: leaf[0], roster.members))
    upload = upload._replace(
        delta=tree.cast(upload.delta, anchor.params), state=tree.cast(upload.state, anchor.state)
    )
    outcome = Outcome(
        {**jax.tree.map(tree.total, clients, is_leaf=lambda x: isinstance(x, Mean)), **metrics},
        clients,
    )
    if lost is None:
        return Trip(upload, state, memory, outcome, roster)
    left = drop_clients(roster, lost)
    return Trip(
        upload, state, memory, outcome._replace(clients={**clients, NONFINITE: left.dropped}), left
    )


def assign(
    local_work: LocalWork, limit: int, roster: Roster, epochs: int | None
) -> tuple[LocalWork, Roster]:
    """What the clients of a trip do, and the roster with their steps."""
    roster = within(local_work, limit, roster)
    if epochs is None:
        return local_work, roster
    local_work = local_work._replace(epochs=epochs, steps=None)
    return local_work, roster._replace(
        steps=jnp.where(roster.present, local_steps(local_work, roster.size), 0)
    )


def run_shards(
    plan: Plan, work: Work, dealt: Deal, table: PyTree, slots: Array, gaps: bool = False
) -> Reduced:
    """This device's shards, one after another; results stacked ``[S / D, ...]``, except the memory table, which they share."""
    count = plan.shards_per_device
    first = lax.axis_index(AXIS) * count if plan.replicas > 1 else 0

    def shard(table: PyTree, index: Array | int) -> tuple[PyTree, Reduced]:
        clients = shard_queue(dealt, first + index, tree.take(slots, jnp.asarray(index)), gaps)
        result = run_shard(plan, work, clients, table)
        return result.table, result._replace(table=())

    if count == 1:
        table, result = shard(table, 0)
        stacked = tree.tile(result, 1)
    else:
        table, stacked = lax.scan(shard, table, jnp.arange(count, dtype=jnp.int32))
    return stacked._replace(table=table)


def run_shard(plan: Plan, work: Work, clients: queue.Queue, table: PyTree) -> Reduced:
    """One shard's clients, on the engine of the plan; clients of one step need no queue."""
    like = shapes(work, row(clients.members), row(table))
    if plan.kind == "padded":
        return padded.run(spread(plan, work), clients, table, like)
    lanes = choose_lanes(plan, nbytes(plan, "local", like.local), clients.length, work.bound)
    run = single_step.run if work.bound == 1 else queue.run
    apart = lanes > 1 and bool(
        jax.tree.leaves((like.memory, like.local))
    )  # an evaluation of the common model holds neither
    return run(
        spread(plan, suit_platform(plan, work, apart)),
        clients,
        table,
        like,
        lanes,
        lane_mapper(plan),
        pace_of(plan),
    )


def collect(
    plan: Plan, reduce: str, dealt: Deal, reduced: Reduced, cohort: int
) -> tuple[Upload, PyTree, Metrics, Array | None]:
    """Every shard's results together: upload and stats as ``finalize`` sees them, metrics and who is lost in roster order."""

    def gather(values: PyTree) -> PyTree:
        if plan.replicas == 1:
            return values
        return jax.tree.map(lambda leaf: lax.all_gather(leaf, AXIS, tiled=True), values)

    def add_up(values: PyTree) -> PyTree:
        if plan.ordered:
            return in_order(gather(values), plan.shards)
        local = tree.total(values)
        return (
            jax.tree.map(lambda leaf: lax.psum(leaf, AXIS), local) if plan.replicas > 1 else local
        )

    upload = (
        to_roster_order(dealt, gather(reduced.upload), cohort)
        if reduce == "stack"
        else add_up(reduced.upload)
    )
    clients, lost = to_roster_order(dealt, gather((reduced.clients, reduced.dropped)), cohort)
    return upload, add_up(reduced.stats), clients, lost


def in_order(values: PyTree, count: int) -> PyTree:
    """``((v0 + v1) + v2) + ...``: the same bits however the values were spread over devices."""
    total = tree.take(values, jnp.int32(0))
    return lax.fori_loop(
        1, count, lambda i, running: tree.add(running, tree.take(values, i)), total
    )
