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
from fedjax_sim.data.batching import LocalWork, census
from fedjax_sim.data.population import Table
from fedjax_sim.engine import Plan, make_trips
from fedjax_sim.engine.host.examples import RoundInputs, SampledCohort
from fedjax_sim.engine.lanes.schedule import deal
from fedjax_sim.engine.nonfinite import OFF, NonFinitePolicy, apply_to_outcome
from fedjax_sim.engine.rollback import SavedRows, roll_back, save_cohort_rows
from fedjax_sim.engine.trip import within

# Streams of a round's key.
SAMPLE, ROUND = range(2)


def sample_cohort(
    sampler: Sampler,
    plan: Plan,
    local_work: LocalWork,
    facts: Census,
    seed: Array,
    round: Array,
    state: PyTree,
) -> SampledCohort:
    """Who takes part in a round, and how the cohort is dealt."""
    roster, chosen = sampler.sample(fold_in(round_key(seed, round), SAMPLE), state, facts, round)
    roster = within(local_work, plan.limit, roster)
    return SampledCohort(roster, chosen, deal(roster, plan.shards))


def run_round(
    algorithm: Algorithm,
    sampler: Sampler,
    plan: Plan,
    local_work: LocalWork,
    guard: NonFinitePolicy,
    state: RoundState,
    supply: RoundInputs,
) -> tuple[RoundState, Outcome]:
    """One round, for a cohort that was sampled and dealt before, on every device."""
    roster, chosen, places = supply.cohort
    trip = make_trips(plan, supply.table, local_work, places, guard)
    key = fold_in(round_key(state.seed, state.round), ROUND)
    aside = save_cohort_rows(plan, state, roster.id) if guard.can_reject else SavedRows(state)
    after, memory, outcome = algorithm.round(trip, key, state.algorithm, aside.state.memory, roster)
    roster, outcome = apply_to_outcome(guard, roster, outcome)
    outcome = outcome._replace(metrics={**outcome.metrics, "cohort": roster.count})
    observed = sampler.observe(chosen, roster, outcome.clients)
    moved = RoundState(
        round=state.round + 1, seed=state.seed, algorithm=after, memory=memory, sampler=observed
    )
    return roll_back(plan, aside, moved, roster) if guard.can_reject else moved, outcome


def make_spmd(
    algorithm: Algorithm,
    sampler: Sampler,
    plan: Plan,
    local_work: LocalWork,
    guard: NonFinitePolicy = OFF,
) -> Callable[[RoundState, Table], tuple[RoundState, Outcome]]:
    """One round as the pure function that every device runs on its own shards: ``(state, table) -> (state, outcome)``."""

    def spmd(state: RoundState, table: Table) -> tuple[RoundState, Outcome]:
        sampled = sample_cohort(
            sampler,
            plan,
            local_work,
            census(local_work, table.size),
            state.seed,
            state.round,
            state.sampler,
        )
        # As if the host had sampled, to the last bit: XLA would compute parts of it anew among the steps.
        return run_round(
            algorithm,
            sampler,
            plan,
            local_work,
            guard,
            state,
            RoundInputs(lax.optimization_barrier(sampled), table),
        )

    return spmd


def round_key(seed: Array, round: Array) -> Key:
    """What everything random in a round is drawn from."""
    return fold_in(jax.random.key(seed), round)


def repeat(
    spmd: Callable, rounds: int, state: RoundState, given: PyTree
) -> tuple[RoundState, Outcome]:
    """So many rounds as one scan."""
    return lax.scan(lambda state, _: spmd(state, given), state, length=rounds)


def initial_state(
    algorithm: Algorithm,
    sampler: Sampler,
    sizes: Array,
    local_work: LocalWork,
    variables: Variables,
    seed: int | Array,
) -> RoundState:
    """The logical state before the first round; ``sizes`` are int32[N], the clients' examples."""
    state = initial_row_state(algorithm, sampler, local_work, sizes, variables, seed)
    return replace(state, memory=tree.tile(state.memory, len(sizes)))


def initial_row_state(
    algorithm: Algorithm,
    sampler: Sampler,
    local_work: LocalWork,
    sizes: Array,
    variables: Variables,
    seed: int | Array,
) -> RoundState:
    """The state before the first round, but for its memory, of which it has one client's row."""
    return RoundState(
        round=jnp.int32(0),
        seed=jnp.asarray(seed, jnp.uint32),
        algorithm=algorithm.init(variables),
        memory=algorithm.memory(variables),
        sampler=sampler.init(census(local_work, sizes)),
    )
