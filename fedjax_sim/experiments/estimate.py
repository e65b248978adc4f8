"""Estimates the costs of a run from shapes: nothing is computed or allocated."""

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
from fedjax_sim.engine.host.examples import bucket
from fedjax_sim.engine.host.rows.slots import PAGE
from fedjax_sim.engine.round import initial_state
from fedjax_sim.experiments.experiment import Experiment
from fedjax_sim.experiments.run import starting_variables

COHORTS_IN_FLIGHT = 2
"""Cohorts whose examples and memory rows are on the devices at once: the current and the next."""
DEVIATIONS = 2
"""Standard deviations above the mean at which the examples of a device's clients are estimated."""


class Estimate(NamedTuple):
    """Costs of a run; bytes, unless stated otherwise."""

    parameters: int
    """Trained scalars."""
    cohort: int
    """Largest number of clients in a round."""
    trips: tuple[TripCost, ...]
    """Costs of the trips of a round, per client."""
    examples: int
    """Training examples of all clients."""
    data: int
    """Training examples on each device: all, or those of two cohorts."""
    server: int
    """State of the algorithm and the sampler, on each device."""
    memory: int
    """Memory of all clients."""
    memory_on_device: int
    """Client memory on each device: its block of the table, or the rows of two cohorts."""
    client_sizes: int
    """Sizes and steps of all clients, if the host passes examples: on one device per process."""
    host: int
    """Host memory of each process for sizes, addresses and cohorts in flight, without cached pages
    of files."""

    @property
    def device(self) -> int:
        """Bytes on the fullest device, approximately.

        Each lane has its local state, a gradient and an update.
        """
        lanes = max((trip.lanes * trip.local * 3 for trip in self.trips), default=0)
        return self.data + 2 * self.server + self.memory_on_device + self.client_sizes + lanes


def estimate(experiment: Experiment) -> Estimate:
    """Estimates the costs of an experiment, by tracing one round on shapes.

    Args:
      experiment: from :func:`fedjax_sim.experiments.build`.

    Returns:
      The costs, in bytes unless stated otherwise.
    """
    plan = experiment.program.plan
    data = experiment.task.data.train
    algorithm = experiment.algorithm
    sampler = experiment.sampler
    work = experiment.local_work
    variables = jax.eval_shape(lambda: starting_variables(experiment))
    table = outline(data)
    cohort = sampler.cohort(data.clients)
    state = jax.eval_shape(
        lambda variables, sizes: initial_state(algorithm, sampler, sizes, work, variables, 0),
        variables,
        table.size,
    )
    row = sharding.nbytes(plan, "memory", jax.eval_shape(algorithm.memory, variables))
    buffers = COHORTS_IN_FLIGHT * buffer_bytes(plan, data, cohort)
    rows = COHORTS_IN_FLIGHT * device_cohort(plan, cohort) * row
    data_on_host = plan.data == "host"
    memory_on_host = plan.client_memory == "host"
    block = -(-data.clients // plan.replicas) * row + rows * (plan.replicas > 1)
    in_flight = buffers * data_on_host * (plan.platform != "cpu") + rows * memory_on_host
    slots = 4 * data.clients // PAGE * memory_on_host
    return Estimate(
        parameters=tree.size(variables.params),
        cohort=cohort,
        trips=trip_costs(algorithm, sampler, plan, work, state, table),
        examples=tree.nbytes((table.x, table.y)),
        data=buffers if data_on_host else tree.nbytes(table),
        server=sharding.nbytes(plan, "algorithm", state.algorithm) + tree.nbytes(state.sampler),
        memory=tree.nbytes(state.memory),
        memory_on_device=rows if memory_on_host else block,
        client_sizes=tree.nbytes((table.size, table.size)) * data_on_host,
        host=12 * data.clients + in_flight * len(plan.local_devices) + slots,
    )


def device_cohort(plan: Plan, cohort: int) -> int:
    """Returns the largest number of clients that a device trains in a round.

    Args:
      plan: for its shards.
      cohort: clients in a round.
    """
    return plan.shards_per_device * -(-cohort // plan.shards)


def buffer_bytes(plan: Plan, data: Population, cohort: int) -> int:
    """Returns the bytes of a device's buffer for the examples of a cohort, in almost all rounds.

    Args:
      plan: for its shards.
      data: the training examples.
      cohort: clients in a round.
    """
    clients = device_cohort(plan, cohort)
    sizes = data.sizes
    expected = clients * sizes.mean() + DEVIATIONS * math.sqrt(clients) * sizes.std()
    total = int(data.offsets[-1])
    table = outline(data)
    example = tree.nbytes((table.x, table.y)) // total
    places = bucket(min(total, math.ceil(expected)), data, clients)
    return places * example + 3 * 4 * clients


def lines(experiment: Experiment, costs: Estimate) -> Iterable[tuple[str, str]]:
    """Describes an estimate, as pairs of a label and a text.

    Args:
      experiment: the experiment.
      costs: its estimate.
    """
    run = experiment.config.run
    plan = experiment.program.plan
    data = experiment.task.data.train
    sizes = data.sizes
    examples = f"{int(sizes.min())} to {int(sizes.max())} examples"
    yield "clients", f"{data.clients:,} with {examples}, {int(data.offsets[-1]):,} in total"
    yield "cohort", f"{costs.cohort} clients per round, {run.rounds:,} rounds"
    yield "parameters", f"{costs.parameters:,}"
    for number, trip in enumerate(costs.trips, 1):
        prefix = f"trip {number}: " if len(costs.trips) > 1 else ""
        for label, text in trip_lines(trip, costs.cohort, sizes):
            yield f"{prefix}{label}", text
    devices = f"{len(plan.devices)} x {plan.platform}, {plan.shards} shards"
    yield "devices", f"{devices}, backend {plan.backend}, engine {plan.kind}"
    yield from memory_lines(plan, costs)


def trip_lines(trip: TripCost, cohort: int, sizes: np.ndarray) -> Iterable[tuple[str, str]]:
    """Describes one trip of a round, as pairs of a label and a text.

    Args:
      trip: its costs per client.
      cohort: clients in a round.
      sizes: int[N], training examples of each client.
    """
    for label, nbytes in (("down per round", trip.down), ("up per round", trip.up)):
        yield label, f"{format_bytes(nbytes * cohort)} ({format_bytes(nbytes)} per client)"
    steps = np.asarray(local_steps(trip.local_work, jnp.asarray(sizes, jnp.int32)))
    mean = float(steps.mean())
    per_client = f"{mean:.1f} per client, at most {int(steps.max())}"
    yield "steps per round", f"about {mean * cohort:,.0f} ({per_client})"
    yield "lanes", f"{trip.lanes} on each device"


def memory_lines(plan: Plan, costs: Estimate) -> Iterable[tuple[str, str]]:
    """Describes where examples and client memory are kept, as pairs of a label and a text.

    Args:
      plan: the plan of the run.
      costs: its estimate.
    """
    data_on_host = plan.data == "host"
    memory_on_host = plan.client_memory == "host"
    share = "for the current cohort and the next"
    where = "the device that samples" if data_on_host else "each device"
    yield "device memory", f"about {format_bytes(costs.device)} on {where}"
    examples = format_bytes(costs.data)
    if data_on_host:
        examples = f"{examples} {share}; {format_bytes(costs.examples)} on the host"
    yield "  examples", examples
    table = format_bytes(costs.memory)
    on_device = format_bytes(costs.memory_on_device)
    if memory_on_host:
        yield "  client memory", f"{on_device} {share}; up to {table} in files"
    else:
        yield "  client memory", f"{on_device} ({table} in total)"
    if data_on_host:
        yield "  client sizes", format_bytes(costs.client_sizes)
        yield "host memory", f"{format_bytes(costs.host)} per process, without cached files"
    available = device_memory(plan)
    if not memory_on_host and costs.memory_on_device > available:
        problem = f"client memory takes {on_device}, but a device has {format_bytes(available)}"
        yield "warning", f'{problem}; set engine.client_memory = "host"'


def device_memory(plan: Plan) -> int:
    """Returns the bytes that each device has for a round; CPU devices share the machine's memory.

    Args:
      plan: for its devices and its ``memory_limit``.
    """
    shared = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(plan.devices)
    return memory_limit.device_memory(plan) or shared


def format_bytes(count: float) -> str:
    """Returns a number of bytes as text, with three digits and a unit.

    Args:
      count: bytes.

    Example:

        >>> from fedjax_sim.experiments.estimate import format_bytes
        >>> format_bytes(1500), format_bytes(2.5e6)
        ('1.5 kB', '2.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
