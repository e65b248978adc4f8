"""A round as pure functions: ``federate`` makes an algorithm of a learner, an aggregator and a server; ``make_spmd`` a round of it, from
one state to the next. What makes it run, and where, is :mod:`fedjax_sim.program`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import fold_in

from fedjax_sim import tree
from fedjax_sim.aggregators.stages import require_reducer
from fedjax_sim.data.batching import Batching, census
from fedjax_sim.data.population import Table
from fedjax_sim.engine import Plan, Trips, make_trips
from fedjax_sim.engine.deal import deal
from fedjax_sim.engine.trip import within
from fedjax_sim.engine.undo import Aside, set_aside, undo
from fedjax_sim.guard import OFF, Guard, account
from fedjax_sim.supply import Order, Supply
from fedjax_sim.types import (
    Aggregator,
    Algorithm,
    Array,
    Census,
    Key,
    Learner,
    Member,
    Message,
    Outcome,
    PyTree,
    Roster,
    RoundState,
    Sampler,
    Server,
    Upload,
    Variables,
)

# Streams of a round's key.
SAMPLE, ROUND = range(2)
# Streams of the key that an algorithm's round gets; one with several trips goes on from here.
TRIP, UPDATE = range(2)


class Federated(NamedTuple):
    """State of :func:`federate`'s algorithms."""

    server: PyTree
    aggregator: PyTree


def federate(learner: Learner, aggregator: Aggregator, server: Server, epochs: int | None = None) -> Algorithm:
    """The one-trip algorithm: broadcast, learn, aggregate, update.

    Args:
      learner, aggregator, server: the three owners of state.
      epochs: so many whole passes over each client's data, instead of the local work that the roster asks for.
    """

    require_reducer(aggregator)

    def init(variables: Variables) -> Federated:
        return Federated(server.init(variables), aggregator.init(variables))

    def round(trip: Trips, key: Key, state: Federated, memory: PyTree, roster: Roster) -> tuple[Federated, PyTree, Outcome]:
        message = partial(server.broadcast, state.server)
        back = trip(learner, aggregator, fold_in(key, TRIP), message, state.aggregator, memory, roster, epochs=epochs)
        served = update(server, fold_in(key, UPDATE), state.server, back.upload, back.roster)
        return Federated(served, back.aggregator), back.memory, back.outcome

    def variables(state: Federated) -> Variables:
        return server.variables(state.server)

    def broadcast(state: Federated, member: Member) -> Message:
        return server.broadcast(state.server, member)

    return Algorithm(init, learner.init, round, variables, broadcast, learner.personal)


def update(server: Server, key: Key, state: PyTree, upload: Upload, roster: Roster) -> PyTree:
    """The server's update; an empty cohort leaves its state as it is."""
    return tree.where(roster.count > 0, server.update(key, state, upload, roster), state)


def order(sampler: Sampler, plan: Plan, work: Batching, facts: Census, seed: Array, round: Array, state: PyTree) -> Order:
    """Who takes part in a round, and how the cohort is dealt."""
    roster, chosen = sampler.sample(fold_in(round_key(seed, round), SAMPLE), state, facts, round)
    roster = within(work, plan.limit, roster)
    return Order(roster, chosen, deal(roster, plan.shards))


def proceed(
    algorithm: Algorithm, sampler: Sampler, plan: Plan, work: Batching, guard: Guard, state: RoundState, supply: Supply
) -> tuple[RoundState, Outcome]:
    """One round, for a cohort that was sampled and dealt before, on every device."""
    roster, chosen, places = supply.order
    trip = make_trips(plan, supply.table, work, places, guard)
    key = fold_in(round_key(state.seed, state.round), ROUND)
    aside = set_aside(plan, state, roster.id) if guard.refuses else Aside(state)
    after, memory, outcome = algorithm.round(trip, key, state.algorithm, aside.state.memory, roster)
    roster, outcome = account(guard, roster, outcome)
    outcome = outcome._replace(metrics={**outcome.metrics, "cohort": roster.count})
    observed = sampler.observe(chosen, roster, outcome.clients)
    moved = RoundState(round=state.round + 1, seed=state.seed, algorithm=after, memory=memory, sampler=observed)
    return undo(plan, aside, moved, roster) if guard.refuses else moved, outcome


def make_spmd(
    algorithm: Algorithm, sampler: Sampler, plan: Plan, work: Batching, guard: Guard = OFF
) -> Callable[[RoundState, Table], tuple[RoundState, Outcome]]:
    """One round as the pure function that every device runs on its own shards: ``(state, table) -> (state, outcome)``."""

    def spmd(state: RoundState, table: Table) -> tuple[RoundState, Outcome]:
        sampled = order(sampler, plan, work, census(work, table.size), state.seed, state.round, state.sampler)
        # As if the host had sampled, to the last bit: XLA would compute parts of it anew among the steps.
        return proceed(algorithm, sampler, plan, work, guard, state, Supply(lax.optimization_barrier(sampled), table))

    return spmd


def round_key(seed: Array, round: Array) -> Key:
    """What everything random in a round is drawn from."""
    return fold_in(jax.random.key(seed), round)


def repeat(spmd: Callable, rounds: int, state: RoundState, given: PyTree) -> tuple[RoundState, Outcome]:
    """So many rounds as one scan."""
    return lax.scan(lambda state, _: spmd(state, given), state, length=rounds)


def initial(algorithm: Algorithm, sampler: Sampler, sizes: Array, work: Batching, variables: Variables, seed: int | Array) -> RoundState:
    """The logical state before the first round; ``sizes`` are int32[N], the clients' examples."""
    state = before(algorithm, sampler, work, sizes, variables, seed)
    return replace(state, memory=tree.tile(state.memory, len(sizes)))


def before(algorithm: Algorithm, sampler: Sampler, work: Batching, sizes: Array, variables: Variables, seed: int | Array) -> RoundState:
    """The state before the first round, but for its memory, of which it has one client's row."""
    return RoundState(
        round=jnp.int32(0),
        seed=jnp.asarray(seed, jnp.uint32),
        algorithm=algorithm.init(variables),
        memory=algorithm.memory(variables),
        sampler=sampler.init(census(work, sizes)),
    )
