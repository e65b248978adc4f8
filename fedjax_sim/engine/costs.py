"""Sizes of a round's messages, uploads and lanes, from shapes alone: nothing is executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fedjax_sim.core import tree
from fedjax_sim.core.types import (
    Aggregator,
    Algorithm,
    Learner,
    PyTree,
    Roster,
    RoundState,
    Sampler,
    Trip,
)
from fedjax_sim.data.batching import LocalWork, most_steps, population_info
from fedjax_sim.data.population import Table
from fedjax_sim.engine import Plan, make_trips
from fedjax_sim.engine.devices.sharding import nbytes
from fedjax_sim.engine.lanes.platform import choose_lanes
from fedjax_sim.engine.round import sample_cohort
from fedjax_sim.engine.work import Work, bind, client_shapes, row_shapes


class TripCost(NamedTuple):
    """Sizes of one trip of a round, for one client."""

    down: int
    """Bytes of the message."""
    up: int
    """Bytes of the upload, dense, after the aggregator's lift."""
    local: int
    """Bytes of one lane's local state on a device."""
    lanes: int
    """Lanes on each device; with the padded engine, the number of clients of a shard."""
    local_work: LocalWork
    """The client's local work in this trip."""


def trip_costs(
    algorithm: Algorithm,
    sampler: Sampler,
    plan: Plan,
    local_work: LocalWork,
    state: Any,
    table: Any,
) -> tuple[TripCost, ...]:
    """Computes the sizes of the trips of one round, in order.

    Args:
      algorithm: as for ``make_round``.
      sampler: as for ``make_round``.
      plan: the program's plan, ``Program.plan``.
      local_work: as for ``make_round``.
      state: a ``RoundState``, or its shapes.
      table: a ``Table``, or its shapes.
    """
    costs: list[TripCost] = []
    single = plan._replace(
        devices=plan.devices[:1],
        shards=plan.shards_per_device,
        backend="vmap",
        devices_per_client=1,
    )

    def one_round(state: RoundState, table: Table) -> PyTree:
        facts = population_info(local_work, table.size)
        cohort = sample_cohort(
            sampler, single, local_work, facts, state.seed, state.round, state.sampler
        )
        run_trip = make_trips(single, table, local_work, cohort.places)

        def trip(
            learner: Learner,
            aggregator: Aggregator,
            key: Any,
            broadcast: Callable,
            aggregator_state: Any,
            memory: Any,
            roster: Roster,
            epochs: int | None = None,
        ) -> Trip:
            own_work = local_work
            if epochs is not None:
                own_work = local_work._replace(epochs=epochs, steps=None)
            bound = most_steps(own_work, plan.limit)
            work = bind(
                learner,
                aggregator,
                key,
                broadcast,
                aggregator_state,
                table,
                own_work,
                plan.limit,
                bound,
            )
            costs.append(_trip_cost(plan, own_work, work, broadcast, memory, roster))
            return run_trip(
                learner, aggregator, key, broadcast, aggregator_state, memory, roster, epochs
            )

        key = jax.random.key(0)
        return algorithm.round(trip, key, state.algorithm, state.memory, cohort.roster)[:2]

    jax.eval_shape(one_round, state, table)
    return tuple(costs)


def _trip_cost(
    plan: Plan,
    local_work: LocalWork,
    work: Work,
    broadcast: Callable,
    memory: PyTree,
    roster: Roster,
) -> TripCost:
    member = row_shapes(roster.members)
    like = client_shapes(work, member, row_shapes(memory))
    upload = like.finished.upload
    local = nbytes(plan, "local", like.local)
    clients = -(-roster.id.shape[0] // plan.shards)
    padded = plan.kind == "padded"
    return TripCost(
        tree.nbytes(jax.eval_shape(broadcast, member)),
        tree.nbytes((upload.delta, upload.state, upload.extra)),
        local,
        clients if padded else choose_lanes(plan, local, clients, work.bound),
        local_work,
    )
