"""DrJAX: one vmap over the cohort, sharded over two CPU devices; one jitted call per round.

Every client is padded to the size of the largest.
"""

from __future__ import annotations

from collections.abc import Callable

import drjax
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jax_models import apply, losses
from protocol import Job, Params, serve

DEVICES = 2


def padded(job: Job) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Batches of all clients ``[clients, steps, batch, ...]`` and their masks, without ``...``."""
    clients = job.clients()
    steps = max(-(-size // job.batch_size) for size in job.sizes())
    rows = (len(clients), steps * job.batch_size)
    first_x, first_y = clients[0]
    x = np.zeros((*rows, *first_x.shape[1:]), first_x.dtype)
    y = np.zeros((*rows, *first_y.shape[1:]), first_y.dtype)
    mask = np.zeros(rows, np.float32)
    for i, (client_x, client_y) in enumerate(clients):
        x[i, : len(client_x)] = client_x
        y[i, : len(client_y)] = client_y
        mask[i, : len(client_x)] = 1
    return tuple(
        leaf.reshape(len(clients), steps, job.batch_size, *leaf.shape[2:]) for leaf in (x, y, mask)
    )


def local_sgd(job: Job) -> Callable[..., tuple[dict, jax.Array]]:
    """One client's round: ``(params, x, y, mask) -> (params, examples)``."""
    run = apply(job)
    # On a CPU, XLA runs a convolution inside a loop on one slow thread: such models are unrolled,
    # which is five times as fast.
    unroll = any(kernel.ndim == 4 for kernel in job.init.values())

    def loss(params: dict, x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.sum(losses(run(params, x), y) * mask) / jnp.maximum(mask.sum(), 1)

    def client(params: dict, x: jax.Array, y: jax.Array, mask: jax.Array) -> tuple[dict, jax.Array]:
        def step(params: dict, batch: tuple) -> tuple[dict, None]:
            grad = jax.grad(loss)(params, *batch)
            return jax.tree.map(lambda p, g: p - job.lr * g, params, grad), None

        return lax.scan(step, params, (x, y, mask), unroll=unroll)[0], mask.sum()

    return client


def setup(job: Job) -> tuple[Callable[[], None], Callable[[], Params]]:
    """The jitted round, and a function that returns its parameters."""
    client = local_sgd(job)

    @jax.jit
    @drjax.program(placements={"clients": len(job.cohort)})
    def average(params: dict, data: tuple) -> dict:
        trained, weights = drjax.map_fn(client, (drjax.broadcast(params), *data))
        return jax.tree.map(
            lambda leaf: (
                drjax.reduce_sum(leaf * broadcast(weights, leaf)) / drjax.reduce_sum(weights)
            ),
            trained,
        )

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:DEVICES]), ("clients",))
    data = jax.device_put(padded(job), NamedSharding(mesh, PartitionSpec("clients")))
    held = {"params": jax.device_put(job.init, NamedSharding(mesh, PartitionSpec()))}

    def round() -> None:
        with jax.set_mesh(mesh):
            held["params"] = jax.block_until_ready(average(held["params"], data))

    return round, lambda: {name: np.asarray(value) for name, value in held["params"].items()}


def broadcast(weights: jax.Array, leaf: jax.Array) -> jax.Array:
    """Weights ``[clients]`` in a shape that multiplies leaves ``[clients, ...]``."""
    return weights.reshape(-1, *(1,) * (leaf.ndim - 1))


jax.config.update("jax_num_cpu_devices", DEVICES)
serve(setup, "drjax", "jax")
