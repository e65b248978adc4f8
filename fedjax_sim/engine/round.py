"""A round as a pure function from one state to the next: :func:`make_spmd`.

:mod:`fedjax_sim.engine.program` compiles it for the devices of a plan.
"""

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
    Key,
    Outcome,
    PopulationInfo,
    PyTree,
    RoundState,
    Sampler,
    Variables,
)
from fedjax_sim.data.batching import LocalWork, population_info
from fedjax_sim.data.population import Table
from fedjax_sim.engine import Plan, make_trips
from fedjax_sim.engine.host.examples import RoundInputs, SampledCohort
from fedjax_sim.engine.lanes.schedule import assign_to_shards
from fedjax_sim.engine.nonfinite import OFF, NonFinitePolicy, apply_to_outcome
from fedjax_sim.engine.rollback import SavedRows, roll_back, save_cohort_rows
from fedjax_sim.engine.trip import limit_steps

# Streams of a round's key.
SAMPLE = 0
ROUND = 1


def sample_cohort(
    sampler: Sampler,
    plan: Plan,
    local_work: LocalWork,
    facts: PopulationInfo,
    seed: Array,
    round: Array,
    state: PyTree,
) -> SampledCohort:
    """Samples the cohort of a round and assigns it to shards.

    Args:
      sampler: chooses the clients.
      plan: for the number of shards and the size of the largest client.
      local_work: bounds the clients' steps.
      facts: sizes and steps of all clients, int32[N] each.
      seed: uint32 scalar, the run's seed.
      round: int32 scalar, the number of the round.
      state: the sampler's state.
    """
    roster, chosen = sampler.sample(fold_in(round_key(seed, round), SAMPLE), state, facts, round)
    roster = limit_steps(local_work, plan.limit, roster)
    return SampledCohort(roster, chosen, assign_to_shards(roster, plan.shards))


def run_round(
    algorithm: Algorithm,
    sampler: Sampler,
    plan: Plan,
    local_work: LocalWork,
    guard: NonFinitePolicy,
    state: RoundState,
    inputs: RoundInputs,
) -> tuple[RoundState, Outcome]:
    """Runs one round of a sampled cohort, on every device.

    Args:
      algorithm: the algorithm.
      sampler: observes the outcome.
      plan: devices, shards and lanes.
      local_work: batch size, epochs and steps of each client.
      guard: the policy for non-finite results.
      state: the state before the round, with this device's block of client memory.
      inputs: the sampled cohort and the table of its examples on this device.

    Returns:
      ``(state, outcome)`` after the round.
    """
    roster, chosen, places = inputs.cohort
    trip = make_trips(plan, inputs.table, local_work, places, guard)
    key = fold_in(round_key(state.seed, state.round), ROUND)
    saved = save_cohort_rows(plan, state, roster.id) if guard.can_reject else SavedRows(state)
    algorithm_state, memory, outcome = algorithm.round(
        trip, key, state.algorithm, saved.state.memory, roster
    )
    roster, outcome = apply_to_outcome(guard, roster, outcome)
    outcome = outcome._replace(metrics={**outcome.metrics, "cohort": roster.count})
    sampler_state = sampler.observe(chosen, roster, outcome.clients)
    after = RoundState(
        round=state.round + 1,
        seed=state.seed,
        algorithm=algorithm_state,
        memory=memory,
        sampler=sampler_state,
    )
    return roll_back(plan, saved, after, roster) if guard.can_reject else after, outcome


def make_spmd(
    algorithm: Algorithm,
    sampler: Sampler,
    plan: Plan,
    local_work: LocalWork,
    guard: NonFinitePolicy = OFF,
) -> Callable[[RoundState, Table], tuple[RoundState, Outcome]]:
    """Returns one round, sampling included, as the pure function that every device runs.

    Args:
      algorithm: the algorithm.
      sampler: chooses the cohort.
      plan: devices, shards and lanes.
      local_work: batch size, epochs and steps of each client.
      guard: the policy for non-finite results.

    Returns:
      ``(state, table) -> (state, outcome)``, where the table holds the whole population.
    """

    def spmd(state: RoundState, table: Table) -> tuple[RoundState, Outcome]:
        cohort = sample_cohort(
            sampler,
            plan,
            local_work,
            population_info(local_work, table.size),
            state.seed,
            state.round,
            state.sampler,
        )
        # The barrier makes the bits those of a cohort sampled on the host: without it XLA would
        # recompute parts of the sampling among the steps.
        inputs = RoundInputs(lax.optimization_barrier(cohort), table)
        return run_round(algorithm, sampler, plan, local_work, guard, state, inputs)

    return spmd


def round_key(seed: Array, round: Array) -> Key:
    """Returns the key from which all random numbers of a round come."""
    return fold_in(jax.random.key(seed), round)


def repeat(
    spmd: Callable, rounds: int, state: RoundState, inputs: PyTree
) -> tuple[RoundState, Outcome]:
    """Runs ``rounds`` rounds as one scan.

    Args:
      spmd: ``(state, inputs) -> (state, outcome)``, one round.
      rounds: static, their number.
      state: the state before the first of them.
      inputs: the same for all rounds.

    Returns:
      The state after the last round, and the outcomes, ``[rounds, ...]`` in every leaf.
    """
    return lax.scan(lambda state, _: spmd(state, inputs), state, length=rounds)


def initial_state(
    algorithm: Algorithm,
    sampler: Sampler,
    sizes: Array,
    local_work: LocalWork,
    variables: Variables,
    seed: int | Array,
) -> RoundState:
    """Returns the logical state before the first round, with memory ``[N, ...]``.

    Args:
      algorithm: the algorithm.
      sampler: the sampler.
      sizes: int32[N], the clients' numbers of examples.
      local_work: for the clients' numbers of steps.
      variables: the initial model.
      seed: the run's seed.
    """
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
    """Like :func:`initial_state`, but the memory is a single client's row."""
    return RoundState(
        round=jnp.int32(0),
        seed=jnp.asarray(seed, jnp.uint32),
        algorithm=algorithm.init(variables),
        memory=algorithm.memory(variables),
        sampler=sampler.init(population_info(local_work, sizes)),
    )
