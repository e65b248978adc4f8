"""DrJAX: one vmap over the cohort, every client padded to the largest, sharded over two CPU devices; one jitted call per round."""

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
    """Batches of all clients ``[clients, steps, batch, ...]`` and their masks ``[clients, steps, batch]``."""
    clients = job.clients()
    steps = max(-(-size // job.batch_size) for size in job.sizes())
    x, y = (
        np.zeros((len(clients), steps * job.batch_size, *leaf.shape[1:]), leaf.dtype)
        for leaf in clients[0]
    )
    mask = np.zeros(x.shape[:2], np.float32)
    for i, (own_x, own_y) in enumerate(clients):
        x[i, : len(own_x)], y[i, : len(own_y)], mask[i, : len(own_x)] = own_x, own_y, 1
    return tuple(
        leaf.reshape(len(clients), steps, job.batch_size, *leaf.shape[2:]) for leaf in (x, y, mask)
    )


def local_sgd(job: Job) -> Callable[..., tuple[dict, jax.Array]]:
    """One client's round: ``(params, x, y, mask) -> (params, examples)``."""
    run = apply(job)
    # On a CPU, XLA runs a convolution inside a loop on one slow thread: such models are unrolled, for that is five times as fast.
    unroll = any(kernel.ndim == 4 for kernel in job.init.values())

    def loss(params: dict, x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.sum(losses(run(params, x), y) * mask) / jnp.maximum(mask.sum(), 1)

    def client(params: dict, x: jax.Array, y: jax.Array, mask: jax.Array) -> tuple[dict, jax.Array]:
        def step(params: dict, batch: tuple) -> tuple[dict, None]:
            return jax.tree.map(
                lambda p, g: p - job.lr * g, params, jax.grad(loss)(params, *batch)
            ), None

        return lax.scan(step, params, (x, y, mask), unroll=unroll)[0], mask.sum()

    return client


def setup(job: Job) -> tuple[Callable[[], None], Callable[[], Params]]:
    client = local_sgd(job)

    @jax.jit
    @drjax.program(placements={"clients": len(job.cohort)})
    def average(params: dict, data: tuple) -> dict:
        trained, weights = drjax.map_fn(client, (drjax.broadcast(params), *data))
        return jax.tree.map(
            lambda leaf: drjax.reduce_sum(leaf * spread(weights, leaf)) / drjax.reduce_sum(weights),
            trained,
        )

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:DEVICES]), ("clients",))
    data = jax.device_put(padded(job), NamedSharding(mesh, PartitionSpec("clients")))
    held = {"params": jax.device_put(job.init, NamedSharding(mesh, PartitionSpec()))}

    def round() -> None:
        with jax.set_mesh(mesh):
            held["params"] = jax.block_until_ready(average(held["params"], data))

    return round, lambda: {name: np.asarray(value) for name, value in held["params"].items()}


def spread(weights: jax.Array, leaf: jax.Array) -> jax.Array:
    """Weights ``[clients]`` against leaves ``[clients, ...]``."""
    return weights.reshape(-1, *(1,) * (leaf.ndim - 1))


jax.config.update("jax_num_cpu_devices", DEVICES)
serve(setup, "drjax", "jax")
