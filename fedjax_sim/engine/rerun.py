"""One round by itself, on one device: to look at it again, with nothing of the population but its cohort."""

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

Read = Callable[[np.ndarray], PyTree]
"""``ids int64[k] -> memory [k, ...]``, numpy; anything for a client that does not exist."""


class Culprits(NamedTuple):
    """Why a round was refused."""

    clients: tuple[int, ...]
    """Whose results were not finite, or too large; nobody where it is the reduction's or the server's doing."""
    names: tuple[str, ...]
    """Their own names, where they have any."""
    state: RoundState
    """The state before it, on the host, its memory only the rows of the cohort: see :func:`cut`."""


def single_device_plan(plan: Plan) -> Plan:
    """The plan of a round on one device, or as many as share a model, whose cohort's data and memory the host brings."""
    backend = "vmap" if plan.devices_per_client == 1 else "shard_map"
    return plan._replace(
        devices=plan.local_devices[: plan.devices_per_client],
        shards=1,
        backend=backend,
        data="host",
        client_memory="host",
    )


def sampled(sample: Sample, facts: PopulationInfo, plan: Plan, state: RoundState) -> SampledCohort:
    """The cohort of the round after a state, in numpy."""
    asked = jax.device_put(
        (facts, *jax.tree.map(np.asarray, (state.seed, state.round, state.sampler))),
        plan.devices[0],
    )
    return jax.tree.map(np.asarray, jax.jit(sample)(*asked))


def cohort_state(order: SampledCohort, state: RoundState, read: Read) -> RoundState:
    """The state on the host, with the memory of the cohort alone: ``[Q, ...]``, in the order in which the only shard takes them."""
    rest = jax.tree.map(np.asarray, replace(state, memory=()))
    return replace(rest, memory=jax.tree.map(np.asarray, read(clients_in_shard_order(order))))


def rows_of(table: PyTree) -> Read:
    """Reads a memory table ``[N, ...]`` of numpy."""
    return lambda ids: jax.tree.map(lambda leaf: leaf[np.minimum(ids, len(leaf) - 1)], table)


def supplied(order: SampledCohort, data: Population | Table, plan: Plan) -> RoundInputs:
    """What the host brings to the round, on the device."""
    backend = make_backend(plan)
    if isinstance(data, Population):
        hands = clients_by_device(order, 1)
        (table,) = pack(
            data, plan, hands, order.places.size, max(1, most_examples(data, hands)), []
        )
    else:
        table = data
    return RoundInputs(backend.share(order), backend.deal([jax.tree.map(np.asarray, table)]))


def find_culprits(
    sample: Sample,
    facts: PopulationInfo,
    proceed: Callable[[RoundState, RoundInputs], tuple[RoundState, Outcome]],
    data: Population | Table,
    plan: Plan,
    state: RoundState,
    read: Read,
) -> Culprits:
    """Who is to blame for the round after a state, found by running it again.

    Args:
      sample, facts: as for a supplier.
      proceed: one round on the device of the plan, under a guard that looks at each client.
      data, plan: of the run, and from :func:`alone`.
      state: on the devices of the run; its memory is not looked at.
      read: what clients remember.
    """
    order = sampled(sample, facts, plan, state)
    before, backend = cohort_state(order, state, read), make_backend(plan)
    again = backend.inspect(
        lambda state, supply: proceed(state, supply)[1].clients[NONFINITE], LAYOUT
    )
    found = np.asarray(again.run(backend.place(before), supplied(order, data, plan)))
    clients = tuple(sorted(found[found >= 0].tolist()))
    names: Any = getattr(data, "names", None)
    return Culprits(clients, () if names is None else tuple(names[i] for i in clients), before)
