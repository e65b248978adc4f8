"""Floors: the same SGD steps on the same batches, without federation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.workloads import Workload
from fedjax_sim.clients.learner import gradient
from fedjax_sim.core.permutation import words_of
from fedjax_sim.core.types import Variables
from fedjax_sim.data.batching import BatchIndices, draw, fetch, local_steps, most_steps
from fedjax_sim.data.population import Table
from fedjax_sim.engine.xla import convolutions
from fedjax_sim.engine.xla.rewrite import canonical

Floor = Callable[[], jax.Array]


def client_steps(workload: Workload) -> np.ndarray:
    """Local steps of each client of a round, int[C]."""
    return local_steps(workload.local_work, workload.data.sizes[workload.cohort])


def schedule(workload: Workload) -> BatchIndices:
    """Rows and masks ``[steps, B]`` of all batches of one round, client after client.

    They are shuffled as the round shuffles them.
    """
    work = workload.local_work
    table = workload.table
    limit = int(workload.data.sizes.max())
    numbers = jnp.arange(most_steps(work, limit), dtype=jnp.int32)

    @jax.jit
    def of_client(client: jax.Array) -> BatchIndices:
        words = words_of(jax.random.fold_in(jax.random.key(0), client))
        return jax.vmap(lambda k: draw(work, limit, words, table, client, k))(numbers)

    steps = zip(workload.cohort, client_steps(workload), strict=True)
    batches = [
        jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], of_client(client))
        for client, count in steps
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *batches)


def sgd_step(
    workload: Workload, table: Table, variables: Variables, batch: BatchIndices
) -> Variables:
    """Returns the variables after one SGD step."""
    grad = gradient(workload.objective, variables, jax.random.key(0), fetch(table, batch))
    return Variables(
        jax.tree.map(lambda p, g: p - workload.lr * g, variables.params, grad.params), grad.state
    )


def scan_floor(workload: Workload, canonically: bool, most: int | None = None) -> tuple[Floor, int]:
    """Returns ``(run, steps)``: all steps in sequence in one jitted scan, on the first device.

    Args:
      workload: whose steps.
      canonically: whether to rewrite convolutions and products as the engine does.
      most: the largest number of steps; all by default.
    """
    batches = jax.tree.map(lambda leaf: leaf[:most], schedule(workload))
    table = workload.table
    variables = workload.init()

    @jax.jit
    def run(table: Table, variables: Variables, batches: BatchIndices) -> Variables:
        step = partial(sgd_step, workload, table)
        step = canonical(step, convolutions.convolve_gradients) if canonically else step
        return lax.scan(lambda before, batch: (step(before, batch), None), variables, batches)[0]

    return lambda: run(table, variables, batches), len(batches.mask)


def single_step(workload: Workload) -> Floor:
    """One step jitted alone, outside of any loop, where XLA runs convolutions on all threads."""
    batch = jax.tree.map(lambda leaf: leaf[0], schedule(workload))
    table = workload.table
    variables = workload.init()
    run = jax.jit(partial(sgd_step, workload))
    return lambda: run(table, variables, batch)


def vmap_floor(workload: Workload) -> Floor:
    """One vmapped gradient of all clients and its mean, for a cohort of one step each."""
    batches = schedule(workload)
    table = workload.table
    variables = workload.init()

    @jax.jit
    def run(table: Table, variables: Variables, batches: BatchIndices) -> Variables:
        after = jax.vmap(partial(sgd_step, workload, table, variables))(batches)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), after)

    return lambda: run(table, variables, batches)
