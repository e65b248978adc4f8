"""What a run will cost, from shapes alone: nothing is computed, no memory is taken."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim.core import tree
from fedjax_sim.data import Population, local_steps
from fedjax_sim.data.population import outline
from fedjax_sim.engine import Plan
from fedjax_sim.engine.costs import TripCost, trip_costs
from fedjax_sim.engine.devices import memory_limit, sharding
from fedjax_sim.engine.host import examples as supply
from fedjax_sim.engine.host.rows.slots import PAGE
from fedjax_sim.engine.round import initial_state
from fedjax_sim.experiments import Experiment
from fedjax_sim.experiments.run import starting_variables

AHEAD = 2
"""Cohorts whose examples and rows are on the way at once: one that is trained, and the next."""
LARGER = 2
"""A device's share of a cohort is taken to have so many standard deviations more examples than the mean."""


class Estimate(NamedTuple):
    """Costs of a run. Bytes, unless said otherwise."""

    parameters: int
    """Scalars that are trained."""
    cohort: int
    """Clients in a round, at most."""
    legs: tuple[TripCost, ...]
    examples: int
    """All clients' examples."""
    data: int
    """Of them on each device: all, or two cohorts' shares."""
    server: int
    """The algorithm's state and the sampler's, on each device."""
    memory: int
    """What all clients remember together."""
    kept: int
    """Of it on each device: its block of the table, or two cohorts' shares."""
    census: int
    """What the sampler knows of the clients, where the host samples: on one device of each process."""
    host: int
    """On the host, of each process, besides pages of files: sizes, addresses, and what is on the way."""

    @property
    def device(self) -> int:
        """On the device that has most, about; for each lane what it holds, its gradient, its update."""
        lanes = max((leg.lanes * leg.local * 3 for leg in self.legs), default=0)
        return self.data + 2 * self.server + self.kept + self.census + lanes


def estimate(experiment: Experiment) -> Estimate:
    """The costs of an experiment, by tracing one round on shapes."""
    plan, data = experiment.program.plan, experiment.task.data.train
    variables, table = jax.eval_shape(lambda: starting_variables(experiment)), outline(data)
    start, cohort = (
        (experiment.algorithm, experiment.sampler),
        experiment.sampler.cohort(data.clients),
    )
    state = jax.eval_shape(
        lambda v, t: initial_state(*start, t.size, experiment.local_work, v, 0), variables, table
    )
    row = sharding.nbytes(plan, "memory", jax.eval_shape(experiment.algorithm.memory, variables))
    packed, rows = AHEAD * buffer(plan, data, cohort), AHEAD * seats(plan, cohort) * row
    supplied, lent = plan.data == "host", plan.client_memory == "host"
    passing = packed * supplied * (plan.platform != "cpu") + rows * lent
    return Estimate(
        parameters=tree.size(variables.params),
        cohort=cohort,
        legs=trip_costs(*start, plan, experiment.local_work, state, table),
        examples=tree.nbytes((table.x, table.y)),
        data=packed if supplied else tree.nbytes(table),
        server=sharding.nbytes(plan, "algorithm", state.algorithm) + tree.nbytes(state.sampler),
        memory=tree.nbytes(state.memory),
        kept=rows if lent else -(-data.clients // plan.replicas) * row + rows * (plan.replicas > 1),
        census=tree.nbytes((table.size, table.size)) * supplied,
        host=12 * data.clients
        + passing * len(plan.local_devices)
        + 4 * data.clients // PAGE * lent,
    )


def seats(plan: Plan, cohort: int) -> int:
    """Clients of a cohort that a device trains, at most."""
    return plan.shards_per_device * -(-cohort // plan.shards)


def buffer(plan: Plan, data: Population, cohort: int) -> int:
    """Bytes of what a device is brought of a cohort's examples, in all but few rounds."""
    clients, sizes = seats(plan, cohort), data.sizes
    needed = clients * sizes.mean() + LARGER * math.sqrt(clients) * sizes.std()
    rows = int(data.offsets[-1])
    example = tree.nbytes((outline(data).x, outline(data).y)) // rows
    return supply.bucket(min(rows, math.ceil(needed)), data, clients) * example + 3 * 4 * clients


def lines(experiment: Experiment, costs: Estimate) -> Iterable[tuple[str, str]]:
    """The estimate in words."""
    run, plan, data = experiment.config.run, experiment.program.plan, experiment.task.data.train
    sizes = data.sizes
    yield (
        "clients",
        f"{data.clients:,} with {int(sizes.min())} to {int(sizes.max())} examples, {int(data.offsets[-1]):,} in all",
    )
    yield "cohort", f"{costs.cohort} a round, {run.rounds:,} rounds"
    yield "parameters", f"{costs.parameters:,}"
    for number, leg in enumerate(costs.legs, 1):
        trip = f"trip {number}: " if len(costs.legs) > 1 else ""
        yield (
            f"{trip}down per round",
            f"{size(leg.down * costs.cohort)} ({size(leg.down)} a client)",
        )
        yield f"{trip}up per round", f"{size(leg.up * costs.cohort)} ({size(leg.up)} a client)"
        steps = np.asarray(local_steps(leg.local_work, jnp.asarray(sizes, jnp.int32)))
        mean = float(steps.mean())
        yield (
            f"{trip}steps per round",
            f"about {mean * costs.cohort:,.0f} ({mean:.1f} a client, at most {int(steps.max())})",
        )
        yield f"{trip}lanes", f"{leg.lanes} on each device"
    yield (
        "devices",
        f"{len(plan.devices)} x {plan.platform}, {plan.shards} shards, backend {plan.backend}, engine {plan.kind}",
    )
    yield from memory_lines(plan, costs)


def memory_lines(plan: Plan, costs: Estimate) -> Iterable[tuple[str, str]]:
    """Where examples and client memory are kept, and what that takes."""
    supplied, lent, share = (
        plan.data == "host",
        plan.client_memory == "host",
        "for a cohort and the next",
    )
    yield (
        "memory, estimated",
        f"{size(costs.device)} on {'the device that samples' if supplied else 'each device'}",
    )
    yield (
        "  of it data",
        f"{size(costs.data)} {share}; {size(costs.examples)} on the host"
        if supplied
        else size(costs.data),
    )
    on_device = f"{size(costs.kept)} ({size(costs.memory)} in all)"
    yield (
        "  of it client memory",
        f"{size(costs.kept)} {share}; up to {size(costs.memory)} in files" if lent else on_device,
    )
    if supplied:
        yield "  of it clients' sizes", size(costs.census)
        yield (
            "memory on the host",
            f"{size(costs.host)} for each process, and what it keeps of the files",
        )
    has = device_memory(plan)
    if not lent and costs.kept > has:
        yield (
            "warning",
            f'client memory takes {size(costs.kept)} where a device has {size(has)}; set engine.client_memory = "host"',
        )


def device_memory(plan: Plan) -> int:
    """Bytes that each device has for a round; a CPU's devices share the machine's."""
    shared = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(plan.devices)
    return memory_limit.device_memory(plan) or shared


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
