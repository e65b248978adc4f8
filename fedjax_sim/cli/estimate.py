"""What a run will cost, from shapes alone: nothing is computed, no memory is taken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim import tree
from fedjax_sim.config import Experiment
from fedjax_sim.data import local_steps
from fedjax_sim.data.population import outline
from fedjax_sim.rounds import initial
from fedjax_sim.runs import starting_variables
from fedjax_sim.survey import Leg, survey


class Estimate(NamedTuple):
    """Costs of a run. Bytes, unless said otherwise."""

    parameters: int
    """Scalars that are trained."""
    cohort: int
    """Clients in a round, at most."""
    legs: tuple[Leg, ...]
    data: int
    server: int
    """The algorithm's state."""
    memory: int
    """What all clients remember together."""

    def device(self, devices: int) -> int:
        """On one device, about: data, state, its share of the memory table, and for each lane what it holds, its gradient, its update."""
        lanes = max((leg.lanes * leg.local * 3 for leg in self.legs), default=0)
        return self.data + 2 * self.server + self.memory // devices + lanes


def estimate(experiment: Experiment) -> Estimate:
    """The costs of an experiment, by tracing one round on shapes."""
    variables = jax.eval_shape(lambda: starting_variables(experiment))
    table = outline(experiment.task.data.train)
    start = (experiment.algorithm, experiment.sampler)
    state = jax.eval_shape(lambda v, t: initial(*start, t.size, experiment.batching, v, 0), variables, table)
    legs = survey(*start, experiment.program.plan, experiment.batching, state, table)
    clients = experiment.task.data.train.clients
    return Estimate(
        tree.size(variables.params),
        experiment.sampler.cohort(clients),
        legs,
        tree.nbytes(table),
        tree.nbytes(state.algorithm),
        tree.nbytes(state.memory),
    )


def lines(experiment: Experiment, costs: Estimate) -> Iterable[tuple[str, str]]:
    """The estimate in words."""
    run, plan, data = experiment.config.run, experiment.program.plan, experiment.task.data.train
    devices = len(plan.devices)
    yield "clients", f"{data.clients:,} with {int(data.sizes.min())} to {int(data.sizes.max())} examples, {int(data.offsets[-1]):,} in all"
    yield "cohort", f"{costs.cohort} a round, {run.rounds:,} rounds"
    yield "parameters", f"{costs.parameters:,}"
    for number, leg in enumerate(costs.legs, 1):
        trip = f"trip {number}: " if len(costs.legs) > 1 else ""
        yield f"{trip}down per round", f"{size(leg.down * costs.cohort)} ({size(leg.down)} a client)"
        yield f"{trip}up per round", f"{size(leg.up * costs.cohort)} ({size(leg.up)} a client)"
        steps = np.asarray(local_steps(leg.work, jnp.asarray(data.sizes, jnp.int32)))
        mean = float(steps.mean())
        yield f"{trip}steps per round", f"about {mean * costs.cohort:,.0f} ({mean:.1f} a client, at most {int(steps.max())})"
        yield f"{trip}lanes", f"{leg.lanes} on each device"
    yield "devices", f"{devices} x {plan.platform}, {plan.shards} shards, backend {plan.backend}, engine {plan.kind}"
    yield "memory, estimated", f"{size(costs.device(devices))} on each device"
    yield "  of it data", size(costs.data)
    yield "  of it client memory", f"{size(costs.memory // devices)} ({size(costs.memory)} in all)"


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
