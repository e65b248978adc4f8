"""FedAdam.

Memory: none. Upload: ``x - y``. Server: Adam without bias correction, ``v = b2 v + (1 - b2) delta^2``.
Law: with ``b1 = 0``, ``b2 = 1`` and ``server_lr = 2 tau`` it is FedAvg.
Reference: Reddi et al., "Adaptive Federated Optimization", 2021, Algorithm 2 (which counts clients alike: ``aggregator=unweighted_mean()``; by
default they are weighted by examples, as in the paper's experiments).
"""

from __future__ import annotations

import jax.numpy as jnp
import optax

from fedjax_sim.algorithms.fedavg import fedavg
from fedjax_sim.core.errors import fraction
from fedjax_sim.core.types import Aggregator, Algorithm, Law, Objective
from fedjax_sim.optimizers.adaptive import adaptive
from fedjax_sim.optimizers.corrections import Optimizer


def fedadam(
    objective: Objective,
    *,
    lr: float | optax.Schedule = 0.1,
    server_lr: float = 0.01,
    b1: float = 0.9,
    b2: float = 0.99,
    tau: float = 1e-3,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """FedOpt with Adam as the paper writes it: no bias correction. For optax's, ``fedavg(server_optimizer=optax.adam(...))``.

    Args:
      server_lr: the server's rate (eta).
      b1, b2: decay of the first and second moment.
      tau: degree of adaptivity; the second moment starts at ``tau^2``.
      objective, lr, local, aggregator: as for FedAvg.
    """
    fraction("fedadam.b2", b2, zero=True)
    server = adaptive(lambda v, delta: b2 * v + (1 - b2) * jnp.square(delta), server_lr, b1, tau)
    return fedavg(objective, lr=lr, local=local, aggregator=aggregator, server_optimizer=server)


LAW = Law(
    "b1 = 0, b2 = 1 and server_lr = 2 tau is FedAvg",
    {"b1": 0.0, "b2": 1.0, "tau": 0.5, "server_lr": 1.0},
)
