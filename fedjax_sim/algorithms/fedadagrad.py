"""FedAdagrad.

Memory: none. Upload: ``x - y``. Server: Adagrad on the averaged pseudo-gradient, ``v = v + delta^2``.
Law: for a large tau the step is ``delta`` times ``server_lr / 2 tau``: FedAvg.
Reference: Reddi et al., "Adaptive Federated Optimization", 2021, Algorithm 2 (which counts clients alike: ``aggregator=unweighted_mean()``; by
default they are weighted by examples, as in the paper's experiments).
"""

from __future__ import annotations

import jax.numpy as jnp
import optax

from fedjax_sim.algorithms.fedavg import fedavg
from fedjax_sim.core.types import Aggregator, Algorithm, Law, Objective
from fedjax_sim.optimizers.adaptive import adaptive
from fedjax_sim.optimizers.corrections import Optimizer


def fedadagrad(
    objective: Objective,
    *,
    lr: float | optax.Schedule = 0.1,
    server_lr: float = 0.1,
    b1: float = 0.0,
    tau: float = 1e-3,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """FedOpt with Adagrad as the paper writes it; for optax's, ``fedavg(server_optimizer=optax.adagrad(...))``.

    Args:
      server_lr: the server's rate (eta).
      b1: momentum; the paper sets it to 0.
      tau: degree of adaptivity; the second moment starts at ``tau^2``.
      objective, lr, local, aggregator: as for FedAvg.
    """
    server = adaptive(lambda v, delta: v + jnp.square(delta), server_lr, b1, tau)
    return fedavg(objective, lr=lr, local=local, aggregator=aggregator, server_optimizer=server)


LAW = Law("for a large tau and server_lr = 2 tau it is FedAvg", {"tau": 1e4, "server_lr": 2e4})
