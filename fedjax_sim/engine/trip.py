"""One trip of a round: broadcast, every client learns, lift, reduce, finalize."""

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
from fedjax_sim.engine.devices.sharding import constrain_work, nbytes
from fedjax_sim.engine.lanes import padded, queue, single_step
from fedjax_sim.engine.lanes.platform import choose_lanes, lane_mapper, loop_control, suit_platform
from fedjax_sim.engine.lanes.schedule import ShardedCohort, by_shard, to_roster_order
from fedjax_sim.engine.lanes.schedule import queue as shard_queue
from fedjax_sim.engine.nonfinite import NONFINITE, OFF, NonFinitePolicy, drop_clients
from fedjax_sim.engine.plan import AXIS, Plan
from fedjax_sim.engine.work import Reduced, Work, bind, client_shapes, row_shapes


class Trips(Protocol):
    """The trip function that algorithms call, bound to data and devices."""

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
        """Runs one trip.

        Args:
          learner: the clients' part.
          aggregator: the reduction of the uploads.
          key: the trip's key.
          broadcast: ``member -> message``.
          state: the aggregator's state.
          memory: this device's block of client memory, ``[R, ...]`` in every leaf.
          roster: the clients that take part, ``[C]`` in every leaf.
          epochs: whole passes over each client's data, instead of the roster's steps.
        """
        ...


class TripContext(NamedTuple):
    """Everything that all trips of a round have in common."""

    plan: Plan
    table: Table
    local_work: LocalWork
    places: Array
    """int32[S, Q], the roster rows of each shard. All trips of a round use the same ones, since a
    device holds the examples of its own clients only."""
    guard: NonFinitePolicy


def make_trips(
    plan: Plan, table: Table, local_work: LocalWork, places: Array, guard: NonFinitePolicy = OFF
) -> Trips:
    """Returns the trip function of one round, to be called in the SPMD program of the devices.

    Args:
      plan: devices, shards and lanes.
      table: the examples on this device.
      local_work: what each client does, unless a trip gives ``epochs``.
      places: int32[S, Q], the roster rows of each shard, from
        :func:`fedjax_sim.engine.lanes.schedule.assign_to_shards`.
      guard: whether clients with non-finite results are dropped.
    """
    return partial(_trip, TripContext(plan, table, local_work, places, guard))


def limit_steps(local_work: LocalWork, limit: int, roster: Roster) -> Roster:
    """Lowers the roster's steps to at most those of a client with ``limit`` examples."""
    return roster._replace(steps=jnp.minimum(roster.steps, most_steps(local_work, limit)))


def _trip(
    context: TripContext,
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
    plan = context.plan
    local_work, cohort = assign(context.local_work, plan.limit, roster, epochs)
    work = bind(
        learner,
        aggregator,
        fold_in(key, 0),
        broadcast,
        state,
        context.table,
        local_work,
        plan.limit,
        most_steps(local_work, plan.limit),
        context.guard,
    )
    shards = by_shard(cohort, context.places)
    reduced, memory = _run_with_memory(plan, work, shards, memory, roster)
    upload, stats, clients, dropped = combine_shards(
        plan, work.reduce, shards, reduced, roster.id.shape[0]
    )
    upload, state, metrics = aggregator.finalize(fold_in(key, 1), state, upload, stats)
    anchor = jax.eval_shape(broadcast, jax.tree.map(lambda leaf: leaf[0], roster.members))
    upload = upload._replace(
        delta=tree.cast(upload.delta, anchor.params), state=tree.cast(upload.state, anchor.state)
    )
    totals = jax.tree.map(tree.total, clients, is_leaf=lambda node: isinstance(node, Mean))
    outcome = Outcome({**totals, **metrics}, clients)
    if dropped is None:
        return Trip(upload, state, memory, outcome, roster)
    remaining = drop_clients(roster, dropped)
    outcome = outcome._replace(clients={**clients, NONFINITE: remaining.dropped})
    return Trip(upload, state, memory, outcome, remaining)


def _run_with_memory(
    plan: Plan, work: Work, shards: ShardedCohort, memory: PyTree, roster: Roster
) -> tuple[Reduced, PyTree]:
    """Runs this device's shards between fetching and returning their clients' memory rows."""
    ids = shards.members.id
    on_host = plan.client_memory == "host"
    rows = gather_rows(memory, ids, plan.replicas, on_host)
    reduced = run_shards(
        plan, work, shards, rows.table, rows.slots, gaps=roster.dropped is not None
    )
    written = rows._replace(table=reduced.table)
    memory = scatter_rows(memory, written, ids, plan.replicas, roster.population, on_host)
    return reduced, memory


def assign(
    local_work: LocalWork, limit: int, roster: Roster, epochs: int | None
) -> tuple[LocalWork, Roster]:
    """Returns the local work of a trip and the roster with each client's steps.

    Args:
      local_work: the round's local work.
      limit: static, examples of the largest client.
      roster: ``[C]`` in every leaf.
      epochs: whole passes that replace the roster's steps; ``None`` keeps them.
    """
    roster = limit_steps(local_work, limit, roster)
    if epochs is None:
        return local_work, roster
    local_work = local_work._replace(epochs=epochs, steps=None)
    return local_work, roster._replace(
        steps=jnp.where(roster.present, local_steps(local_work, roster.size), 0)
    )


def run_shards(
    plan: Plan,
    work: Work,
    shards: ShardedCohort,
    table: PyTree,
    slots: Array,
    gaps: bool = False,
) -> Reduced:
    """Runs this device's shards one after another.

    Args:
      plan: devices, shards and lanes.
      work: functions of one client.
      shards: the whole cohort, ``[S, Q]`` in every leaf.
      table: memory rows, shared by all shards of this device.
      slots: int32[S / D, Q], the clients' rows of ``table``.
      gaps: True if clients may have been dropped since the cohort was sharded.

    Returns:
      The results, stacked ``[S / D, ...]``, except the memory table.
    """
    count = plan.shards_per_device
    first = lax.axis_index(AXIS) * count if plan.replicas > 1 else 0

    def shard(table: PyTree, index: Array | int) -> tuple[PyTree, Reduced]:
        clients = shard_queue(shards, first + index, tree.take(slots, jnp.asarray(index)), gaps)
        result = run_shard(plan, work, clients, table)
        return result.table, result._replace(table=())

    if count == 1:
        table, result = shard(table, 0)
        stacked = tree.tile(result, 1)
    else:
        table, stacked = lax.scan(shard, table, jnp.arange(count, dtype=jnp.int32))
    return stacked._replace(table=table)


def run_shard(plan: Plan, work: Work, clients: queue.Queue, table: PyTree) -> Reduced:
    """Runs one shard's clients on the plan's engine. Clients of a single step need no queue.

    Args:
      plan: devices, shards and lanes.
      work: functions of one client.
      clients: the shard's queue, ``[Q]`` in every leaf.
      table: memory rows.
    """
    like = client_shapes(work, row_shapes(clients.members), row_shapes(table))
    if plan.kind == "padded":
        return padded.run(constrain_work(plan, work), clients, table, like)
    lanes = choose_lanes(plan, nbytes(plan, "local", like.local), clients.length, work.bound)
    run = single_step.run if work.bound == 1 else queue.run
    # The evaluation of the common model has neither memory nor local state.
    separate_models = lanes > 1 and bool(jax.tree.leaves((like.memory, like.local)))
    return run(
        constrain_work(plan, suit_platform(plan, work, separate_models)),
        clients,
        table,
        like,
        lanes,
        lane_mapper(plan),
        loop_control(plan),
    )


def combine_shards(
    plan: Plan, reduce: str, shards: ShardedCohort, reduced: Reduced, cohort: int
) -> tuple[Upload, PyTree, Metrics, Array | None]:
    """Combines the results of all shards of all devices.

    Args:
      plan: devices and shards.
      reduce: ``"sum"`` or ``"stack"``.
      shards: the cohort, ``[S, Q]`` in every leaf.
      reduced: this device's results, ``[S / D, ...]`` in every leaf.
      cohort: C.

    Returns: ``(upload, stats, clients, dropped)``: upload and stats as ``finalize`` takes them, the
      clients' metrics (``[C]``) and which clients were dropped (bool[C], or ``None``) in roster
      order.
    """

    def gather(values: PyTree) -> PyTree:
        if plan.replicas == 1:
            return values
        return jax.tree.map(lambda leaf: lax.all_gather(leaf, AXIS, tiled=True), values)

    def add_up(values: PyTree) -> PyTree:
        if plan.ordered:
            return sum_in_order(gather(values), plan.shards)
        local = tree.total(values)
        if plan.replicas == 1:
            return local
        return jax.tree.map(lambda leaf: lax.psum(leaf, AXIS), local)

    if reduce == "stack":
        upload = to_roster_order(shards, gather(reduced.upload), cohort)
    else:
        upload = add_up(reduced.upload)
    clients, dropped = to_roster_order(shards, gather((reduced.clients, reduced.dropped)), cohort)
    return upload, add_up(reduced.stats), clients, dropped


def sum_in_order(values: PyTree, count: int) -> PyTree:
    """Returns ``((v0 + v1) + v2) + ...`` over the leading axis of ``count`` values.

    The bits of the sum do not depend on how the values were spread over devices.
    """
    total = tree.take(values, jnp.int32(0))
    return lax.fori_loop(
        1, count, lambda i, running: tree.add(running, tree.take(values, i)), total
    )
