"""A round as a pure function from one state to the next: :func:`make_spmd`. What makes it run, and where, is
:mod:`fedjax_sim.engine.program`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import fold_in

from fedjax_sim.core import tree
from fedjax_sim.core.types import (
    Algorithm,
    Array,
    Census,
    Key,
    Outcome,
    PyTree,
    RoundState,
    Sampler,
    Variables,
)
from fedjax_sim.data.batching import Batching, census
from fedjax_sim.data.population import Table
from fedjax_sim.engine import Plan, make_trips
from fedjax_sim.engine.host.examples import Order, Supply
from fedjax_sim.engine.lanes.schedule import deal
from fedjax_sim.engine.nonfinite import OFF, Guard, account
from fedjax_sim.engine.rollback import Aside, set_aside, undo
from fedjax_sim.engine.trip import within

# Streams of a round's key.
SAMPLE, ROUND = range(2)


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
