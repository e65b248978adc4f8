"""FedYogi.

Memory: none.
Upload: ``x - y``.
Server: Yogi without bias correction, ``v = v - (1 - b2) delta^2 sign(v - delta^2)``.
Law: with ``b1 = 0``, ``b2 = 1`` and ``server_lr = 2 tau`` it is FedAvg.
Reference: Reddi et al., "Adaptive Federated Optimization", 2021, Algorithm 2 (which weights clients
equally: ``aggregator=unweighted_mean()``; by default they are weighted by examples, as in the
paper's experiments).
"""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp
import optax

from fedjax_sim.algorithms.fedavg import fedavg
from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import fraction
from fedjax_sim.core.law import Law
from fedjax_sim.core.types import Aggregator, Algorithm, Array, Objective
from fedjax_sim.optimizers.adaptive import adaptive
from fedjax_sim.optimizers.corrections import Optimizer


def fedyogi(
    objective: Objective,
    *,
    lr: Annotated[float | optax.Schedule, MAY_CHANGE_ON_RESUME] = 0.1,
    server_lr: Annotated[float, MAY_CHANGE_ON_RESUME] = 0.01,
    b1: float = 0.9,
    b2: float = 0.99,
    tau: float = 1e-3,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """FedOpt with Yogi as in the paper, which has no bias correction.

    For optax's Yogi, use ``fedavg(server_optimizer=optax.yogi(...))``.

    Args:
      objective: the function that clients minimise.
      lr: local learning rate (eta_l), or a schedule over the local steps of one round.
      server_lr: the server's learning rate (eta).
      b1: decay of the first moment, in [0, 1].
      b2: decay of the second moment, in [0, 1].
      tau: degree of adaptivity, above 0; the second moment starts at ``tau^2``.
      local: optax transform of the local gradient before the step, such as clipping or
        ``optax.trace(0.9)``.
      aggregator: how uploads are combined; by default the mean weighted by examples.

    Example:
      >>> import jax
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.quadratic()
      >>> algorithm = fs.fedyogi(task.objective)
      >>> state = algorithm.init(task.init(jax.random.key(0)))
      >>> type(state.server.optimizer).__name__
      'Moments'
    """
    fraction("fedyogi.b2", b2, zero=True)

    def second_moment(v: Array, delta: Array) -> Array:
        square = jnp.square(delta)
        return v - (1 - b2) * square * jnp.sign(v - square)

    server = adaptive(second_moment, server_lr, b1, tau)
    return fedavg(objective, lr=lr, local=local, aggregator=aggregator, server_optimizer=server)


LAW = Law(
    "b1 = 0, b2 = 1 and server_lr = 2 tau is FedAvg",
    when={"b1": 0.0, "b2": 1.0, "tau": 0.5, "server_lr": 1.0},
)
