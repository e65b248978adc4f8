"""FedAdagrad.

Memory: none.
Upload: ``x - y``.
Server: Adagrad on the averaged pseudo-gradient, ``v = v + delta^2``.
Law: for a large tau the step is ``delta`` times ``server_lr / 2 tau``: FedAvg.
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
from fedjax_sim.core.law import Law
from fedjax_sim.core.types import Aggregator, Algorithm, Objective
from fedjax_sim.optimizers.adaptive import adaptive
from fedjax_sim.optimizers.corrections import Optimizer


def fedadagrad(
    objective: Objective,
    *,
    lr: Annotated[float | optax.Schedule, MAY_CHANGE_ON_RESUME] = 0.1,
    server_lr: Annotated[float, MAY_CHANGE_ON_RESUME] = 0.1,
    b1: float = 0.0,
    tau: float = 1e-3,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """FedOpt with Adagrad as in the paper.

    For optax's Adagrad, use ``fedavg(server_optimizer=optax.adagrad(...))``.

    Args:
      objective: the function that clients minimise.
      lr: local learning rate (eta_l), or a schedule over the local steps of one round.
      server_lr: the server's learning rate (eta).
      b1: decay of the first moment, in [0, 1]; the paper uses 0.
      tau: degree of adaptivity, above 0; the second moment starts at ``tau^2``.
      local: optax transform of the local gradient before the step, such as clipping or
        ``optax.trace(0.9)``.
      aggregator: how uploads are combined; by default the mean weighted by examples.

    Example:
      >>> import jax
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.quadratic()
      >>> algorithm = fs.fedadagrad(task.objective)
      >>> state = algorithm.init(task.init(jax.random.key(0)))
      >>> type(state.server.optimizer).__name__
      'Moments'
    """
    server = adaptive(lambda v, delta: v + jnp.square(delta), server_lr, b1, tau)
    return fedavg(objective, lr=lr, local=local, aggregator=aggregator, server_optimizer=server)


LAW = Law("for a large tau and server_lr = 2 tau it is FedAvg", when={"tau": 1e4, "server_lr": 2e4})
