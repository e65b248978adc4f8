"""Floors: the same SGD steps on the same batches with no federation around them."""

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
from fedjax_sim.engine.xla import convolutions as products
from fedjax_sim.engine.xla.rewrite import canonical

Floor = Callable[[], jax.Array]


def client_steps(workload: Workload) -> np.ndarray:
    """Integers ``[cohort]``: local steps of each client of a round."""
    return local_steps(workload.local_work, workload.data.sizes[workload.cohort])


def schedule(workload: Workload) -> BatchIndices:
    """Rows and masks ``[steps, B]`` of all batches of one round, client after client, shuffled as the round shuffles them."""
    work, table = workload.local_work, workload.table
    limit = int(workload.data.sizes.max())
    numbers = jnp.arange(most_steps(work, limit), dtype=jnp.int32)

    @jax.jit
    def of_client(client: jax.Array) -> BatchIndices:
        words = words_of(jax.random.fold_in(jax.random.key(0), client))
        return jax.vmap(lambda k: draw(work, limit, words, table, client, k))(numbers)

    taken = zip(workload.cohort, client_steps(workload), strict=True)
    drawn = [jax.tree.map(lambda leaf, n=n: np.asarray(leaf)[:n], of_client(i)) for i, n in taken]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *drawn)


def descend(
    workload: Workload, table: Table, variables: Variables, drawn: BatchIndices
) -> Variables:
    """One SGD step."""
    grad = gradient(workload.objective, variables, jax.random.key(0), fetch(table, drawn))
    return Variables(
        jax.tree.map(lambda p, g: p - workload.lr * g, variables.params, grad.params), grad.state
    )


def scan_floor(workload: Workload, canonically: bool, most: int | None = None) -> tuple[Floor, int]:
    """``(run, steps)``: all steps one after another in one jitted scan, on the first device.

    Args:
      workload: what to do.
      canonically: whether to rewrite convolutions and products as the engine does.
      most: so many steps at most, where all would take too long.
    """
    drawn = jax.tree.map(lambda leaf: leaf[:most], schedule(workload))
    table, variables = workload.table, workload.init()

    @jax.jit
    def run(table: Table, variables: Variables, drawn: BatchIndices) -> Variables:
        step = partial(descend, workload, table)
        step = canonical(step, products.convolve_gradients) if canonically else step
        return lax.scan(lambda now, draw: (step(now, draw), None), variables, drawn)[0]

    return lambda: run(table, variables, drawn), len(drawn.mask)


def single_step(workload: Workload) -> Floor:
    """One step jitted alone, outside any loop: what convolutions cost where XLA has its way."""
    drawn = jax.tree.map(lambda leaf: leaf[0], schedule(workload))
    table, variables = workload.table, workload.init()
    run = jax.jit(partial(descend, workload))
    return lambda: run(table, variables, drawn)


def vmap_floor(workload: Workload) -> Floor:
    """One vmapped gradient of all clients and its mean, for a cohort of one step each."""
    drawn = schedule(workload)
    table, variables = workload.table, workload.init()

    @jax.jit
    def run(table: Table, variables: Variables, drawn: BatchIndices) -> Variables:
        after = jax.vmap(partial(descend, workload, table, variables))(drawn)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), after)

    return lambda: run(table, variables, drawn)
