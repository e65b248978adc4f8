"""Runs one round again on one device, with the cohort's data and memory only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.types import Outcome, PopulationInfo, PyTree, RoundState
from fedjax_sim.data.population import Population, Table
from fedjax_sim.engine.devices.backends import make_backend
from fedjax_sim.engine.host.client_memory import clients_in_shard_order
from fedjax_sim.engine.host.examples import (
    LAYOUT,
    RoundInputs,
    Sample,
    SampledCohort,
    clients_by_device,
    most_examples,
    pack,
)
from fedjax_sim.engine.nonfinite import NONFINITE
from fedjax_sim.engine.plan import Plan

ReadRows = Callable[[np.ndarray], PyTree]
"""``ids int64[k] -> memory [k, ...]``, numpy; the row of an id that does not exist is arbitrary."""


class Culprits(NamedTuple):
    """Why a round was rejected."""

    clients: tuple[int, ...]
    """Ids of the clients whose results were not finite, or too large; empty if the reduction or the
    server caused it."""
    names: tuple[str, ...]
    """Their names, if the population has names."""
    state: RoundState
    """The state before the round, on the host, with the cohort's memory rows only: see
    :func:`cohort_state`."""


def single_device_plan(plan: Plan) -> Plan:
    """Returns the plan of a round on one replica, with data and memory from the host."""
    backend = "vmap" if plan.devices_per_client == 1 else "shard_map"
    return plan._replace(
        devices=plan.local_devices[: plan.devices_per_client],
        shards=1,
        backend=backend,
        data="host",
        client_memory="host",
    )


def sampled(sample: Sample, facts: PopulationInfo, plan: Plan, state: RoundState) -> SampledCohort:
    """Samples the cohort of the round after a state.

    Args:
      sample: ``(facts, seed, round, sampler state) -> cohort``.
      facts: sizes and steps of all clients, int32[N] each.
      plan: its first device does the sampling.
      state: the state before the round.

    Returns:
      The cohort, with numpy leaves.
    """
    arguments = jax.device_put(
        (facts, *jax.tree.map(np.asarray, (state.seed, state.round, state.sampler))),
        plan.devices[0],
    )
    return jax.tree.map(np.asarray, jax.jit(sample)(*arguments))


def cohort_state(cohort: SampledCohort, state: RoundState, read: ReadRows) -> RoundState:
    """Returns the state on the host, with the memory rows of the cohort only.

    Args:
      cohort: a cohort in one shard.
      state: the state; its memory is ignored.
      read: reads memory rows by client id.

    Returns:
      The state, memory ``[Q, ...]`` in shard order.
    """
    rest = jax.tree.map(np.asarray, replace(state, memory=()))
    return replace(rest, memory=jax.tree.map(np.asarray, read(clients_in_shard_order(cohort))))


def table_reader(table: PyTree) -> ReadRows:
    """Returns a function that reads rows of a numpy memory table ``[N, ...]``."""
    return lambda ids: jax.tree.map(lambda leaf: leaf[np.minimum(ids, len(leaf) - 1)], table)


def supplied(cohort: SampledCohort, data: Population | Table, plan: Plan) -> RoundInputs:
    """Copies the inputs of a round, the cohort and its examples, to the plan's devices.

    Args:
      cohort: the cohort, in numpy.
      data: the examples of the whole population, or a table of the cohort's.
      plan: from :func:`single_device_plan`.
    """
    backend = make_backend(plan)
    if isinstance(data, Population):
        clients = clients_by_device(cohort, 1)
        capacity = max(1, most_examples(data, clients))
        (table,) = pack(data, plan, clients, cohort.places.size, capacity, [])
    else:
        table = data
    return RoundInputs(backend.share(cohort), backend.deal([jax.tree.map(np.asarray, table)]))


def find_culprits(
    sample: Sample,
    facts: PopulationInfo,
    run_round: Callable[[RoundState, RoundInputs], tuple[RoundState, Outcome]],
    data: Population | Table,
    plan: Plan,
    state: RoundState,
    read: ReadRows,
) -> Culprits:
    """Finds the clients that caused a round to be rejected, by running the round again.

    Args:
      sample: ``(facts, seed, round, sampler state) -> cohort``.
      facts: sizes and steps of all clients, int32[N] each.
      run_round: one round on the plan's devices, under a guard that checks each client.
      data: the examples of the whole population, or a table of the cohort's.
      plan: from :func:`single_device_plan`.
      state: the state before the round, on the run's devices; its memory is ignored.
      read: reads memory rows by client id.
    """
    cohort = sampled(sample, facts, plan, state)
    before = cohort_state(cohort, state, read)
    backend = make_backend(plan)

    def dropped_ids(state: RoundState, inputs: RoundInputs) -> Any:
        return run_round(state, inputs)[1].clients[NONFINITE]

    program = backend.inspect(dropped_ids, LAYOUT)
    ids = np.asarray(program.run(backend.place(before), supplied(cohort, data, plan)))
    clients = tuple(sorted(ids[ids >= 0].tolist()))
    names: Any = getattr(data, "names", None)
    return Culprits(clients, () if names is None else tuple(names[i] for i in clients), before)
