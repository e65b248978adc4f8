"""From parts to a round: ``federate`` makes an algorithm of a learner, an aggregator and a server; ``make_round`` makes it run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.random import fold_in

from fedjax_sim import tree
from fedjax_sim.aggregators.stages import require_reducer
from fedjax_sim.data.batching import Batching, census
from fedjax_sim.data.population import Population, Table, to_table
from fedjax_sim.engine import Engine, Plan, Trips, make_plan, make_trips
from fedjax_sim.engine.backends import Compiled, make_backend
from fedjax_sim.engine.capacity import make_elastic
from fedjax_sim.types import (
    Aggregator,
    Algorithm,
    Array,
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


AUTOMATIC = Engine()
"""The engine that chooses for itself."""


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
        served = update(server, fold_in(key, UPDATE), state.server, back.upload, roster)
        return Federated(served, back.aggregator), back.memory, back.outcome

    def variables(state: Federated) -> Variables:
        return server.variables(state.server)

    def broadcast(state: Federated, member: Member) -> Message:
        return server.broadcast(state.server, member)

    return Algorithm(init, learner.init, round, variables, broadcast, learner.personal)


def update(server: Server, key: Key, state: PyTree, upload: Upload, roster: Roster) -> PyTree:
    """The server's update; an empty cohort leaves its state as it is."""
    return tree.where(roster.count > 0, server.update(key, state, upload, roster), state)


class Program(NamedTuple):
    """A round, ready to run."""

    init: Callable[..., RoundState]
    """``(variables, seed=0) -> state``, on the devices; the variables stay the caller's."""
    run: Callable[..., tuple[RoundState, Outcome]]
    """``(state, rounds=1) -> (state, outcome)``: so many rounds in one call. Donates the state; outcome leaves are ``[rounds, ...]``."""
    logical: Callable[[RoundState], RoundState]
    """The state on the host, memory ``[N, ...]``: the same for every backend and number of devices."""
    place: Callable[[RoundState], RoundState]
    """A logical state, on this program's devices."""
    lower: Callable[..., jax.stages.Lowered]
    """``(state, rounds=1)``: the lowered program, for its costs and memory."""
    plan: Plan


def make_round(algorithm: Algorithm, sampler: Sampler, data: Population | Table, work: Batching, engine: Engine = AUTOMATIC) -> Program:
    """Composes sampling, batching, learning, reduction and update into one jitted function.

    Raises:
      FedError: where the parts do not fit each other, the data or the machine.
    """
    data = to_table(data) if isinstance(data, Population) else data
    plan = make_plan(engine, int(np.max(data.size)))
    sampler.cohort(data.clients)  # refuses a cohort that the population cannot fill
    backend = make_backend(plan)
    table = backend.share(data)

    def program(plan: Plan, rounds: int) -> Compiled:
        spmd = make_spmd(algorithm, sampler, plan, work)
        return backend.advance(lambda state, table: repeat(spmd, rounds, state, table))

    def init(variables: Variables, seed: int = 0) -> RoundState:
        return backend.place(on_host(algorithm, sampler, data, work, variables, seed))

    return Program(
        init,
        make_elastic(program, plan, table),
        lambda state: backend.logical(state, data.clients),
        backend.place,
        lambda state, rounds=1: program(plan, rounds).lower(state, table),
        plan,
    )


def make_spmd(
    algorithm: Algorithm, sampler: Sampler, plan: Plan, work: Batching
) -> Callable[[RoundState, Table], tuple[RoundState, Outcome]]:
    """One round as the pure function that every device runs on its own shards: ``(state, table) -> (state, outcome)``."""

    def spmd(state: RoundState, table: Table) -> tuple[RoundState, Outcome]:
        key = fold_in(jax.random.key(state.seed), state.round)
        facts = census(work, table)
        roster, chosen = sampler.sample(fold_in(key, SAMPLE), state.sampler, facts, state.round)
        trip = make_trips(plan, table, work)
        after, memory, outcome = algorithm.round(trip, fold_in(key, ROUND), state.algorithm, state.memory, roster)
        outcome = outcome._replace(metrics={**outcome.metrics, "cohort": roster.count})
        observed = sampler.observe(chosen, roster, outcome.clients)
        return RoundState(round=state.round + 1, seed=state.seed, algorithm=after, memory=memory, sampler=observed), outcome

    return spmd


def repeat(spmd: Callable, rounds: int, state: RoundState, table: Table) -> tuple[RoundState, Outcome]:
    """So many rounds as one scan."""
    return lax.scan(lambda state, _: spmd(state, table), state, length=rounds)


def initial(algorithm: Algorithm, sampler: Sampler, table: Table, work: Batching, variables: Variables, seed: int | Array) -> RoundState:
    """The logical state before the first round."""
    state = _before(algorithm, sampler, work, table, variables, seed)
    return replace(state, memory=tree.tile(state.memory, table.clients))


def on_host(algorithm: Algorithm, sampler: Sampler, table: Table, work: Batching, variables: Variables, seed: int) -> RoundState:
    """The same, with a memory that takes one row's bytes however many clients there are."""
    bare = table._replace(x=(), y=())
    state = jax.jit(partial(_before, algorithm, sampler, work))(bare, variables, jnp.uint32(seed))
    return replace(state, memory=tree.tile_on_host(state.memory, table.clients))


def _before(algorithm: Algorithm, sampler: Sampler, work: Batching, table: Table, variables: Variables, seed: int | Array) -> RoundState:
    """The state before the first round, but for its memory, of which it has one client's row."""
    return RoundState(
        round=jnp.int32(0),
        seed=jnp.asarray(seed, jnp.uint32),
        algorithm=algorithm.init(variables),
        memory=algorithm.memory(variables),
        sampler=sampler.init(census(work, table)),
    )
