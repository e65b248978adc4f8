"""What a round's trips carry and hold, from shapes alone: nothing is computed, no memory is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fedjax_sim.core import tree
from fedjax_sim.core.types import (
    Aggregator,
    Algorithm,
    Learner,
    Message,
    PyTree,
    Roster,
    RoundState,
    Sampler,
)
from fedjax_sim.data.batching import LocalWork, most_steps, population_info
from fedjax_sim.data.population import Table
from fedjax_sim.engine import Plan, make_trips
from fedjax_sim.engine.devices.sharding import nbytes
from fedjax_sim.engine.lanes.platform import choose_lanes
from fedjax_sim.engine.round import sample_cohort
from fedjax_sim.engine.work import Work, bind, row, shapes


class TripCost(NamedTuple):
    """One trip of a round, for one client."""

    down: int
    """Bytes of the message."""
    up: int
    """Bytes of the upload, dense, as the aggregator's lift leaves it."""
    local: int
    """Bytes of what a lane holds on a device."""
    lanes: int
    """Lanes on each device; where clients are padded, as many as there are clients."""
    local_work: LocalWork
    """What a client does in it."""


def trip_costs(
    algorithm: Algorithm,
    sampler: Sampler,
    plan: Plan,
    local_work: LocalWork,
    state: Any,
    table: Any,
) -> tuple[TripCost, ...]:
    """The trips of one round, in order.

    Args:
      algorithm, sampler, plan, work: as for ``make_round``, the plan being ``Program.plan``.
      state: a ``RoundState``, or its shapes.
      table: a ``Table``, or its shapes.
    """
    legs: list[TripCost] = []
    one = plan._replace(
        devices=plan.devices[:1],
        shards=plan.shards_per_device,
        backend="vmap",
        devices_per_client=1,
    )

    def round_(state: RoundState, table: Table) -> PyTree:
        sampled = sample_cohort(
            sampler,
            one,
            local_work,
            population_info(local_work, table.size),
            state.seed,
            state.round,
            state.sampler,
        )
        trips = make_trips(one, table, local_work, sampled.places)

        def trip(
            learner: Learner,
            aggregator: Aggregator,
            key: Any,
            broadcast: Callable,
            kept: Any,
            memory: Any,
            roster: Roster,
            **more: Any,
        ):
            epochs = more.get("epochs")
            own = local_work if epochs is None else local_work._replace(epochs=epochs, steps=None)
            bound = bind(
                learner,
                aggregator,
                key,
                broadcast,
                kept,
                table,
                own,
                plan.limit,
                most_steps(own, plan.limit),
            )
            legs.append(_leg(plan, own, bound, broadcast, memory, roster))
            return trips(learner, aggregator, key, broadcast, kept, memory, roster, **more)

        return algorithm.round(
            trip, jax.random.key(0), state.algorithm, state.memory, sampled.roster
        )[:2]

    jax.eval_shape(round_, state, table)
    return tuple(legs)


def _leg(
    plan: Plan,
    local_work: LocalWork,
    bound: Work,
    broadcast: Callable,
    memory: PyTree,
    roster: Roster,
) -> TripCost:
    member, mine = row(roster.members), row(memory)
    message: Message = jax.eval_shape(broadcast, member)
    like = shapes(bound, member, mine)
    upload = like.finished.upload
    local = nbytes(plan, "local", like.local)
    clients = -(-roster.id.shape[0] // plan.shards)
    return TripCost(
        tree.nbytes(message),
        tree.nbytes((upload.delta, upload.state, upload.extra)),
        local,
        choose_lanes(plan, local, clients, bound.bound) if plan.kind == "queue" else clients,
        local_work,
    )
