"""FedAvgM.

Memory: none.
Upload: ``x - y``.
Server: momentum on the averaged pseudo-gradient, ``v = beta v + delta``, ``x = x - lr v``.
Law: ``momentum = 0`` with server rate 1 is FedAvg.
Reference: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for
Federated Visual Classification", 2019, section 3.
"""

from __future__ import annotations

from typing import Annotated

import optax

from fedjax_sim.algorithms.fedavg import fedavg
from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import fraction, positive
from fedjax_sim.core.law import Law
from fedjax_sim.core.types import Aggregator, Algorithm, Objective
from fedjax_sim.optimizers.corrections import Optimizer


def fedavgm(
    objective: Objective,
    *,
    lr: Annotated[float | optax.Schedule, MAY_CHANGE_ON_RESUME] = 0.1,
    server_lr: Annotated[float, MAY_CHANGE_ON_RESUME] = 1.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """FedAvg with server momentum.

    Args:
      objective: the function that clients minimise.
      lr: local learning rate (eta_l), or a schedule over the local steps of one round.
      server_lr: the server's learning rate.
      momentum: decay of the velocity (beta), in [0, 1].
      nesterov: whether to use Nesterov momentum.
      local: optax transform of the local gradient before the step, such as clipping or
        ``optax.trace(0.9)``.
      aggregator: how uploads are combined; by default the mean weighted by examples.

    Example:
      >>> import jax
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.quadratic()
      >>> algorithm = fs.fedavgm(task.objective, momentum=0.5)
      >>> state = algorithm.init(task.init(jax.random.key(0)))
      >>> type(state.server).__name__
      'OptimizerServerState'
    """
    positive("fedavgm.server_lr", server_lr)
    fraction("fedavgm.momentum", momentum, zero=True)
    server = optax.sgd(server_lr, momentum=momentum, nesterov=nesterov)
    return fedavg(objective, lr=lr, local=local, aggregator=aggregator, server_optimizer=server)


LAW = Law("momentum = 0 is FedAvg", when={"momentum": 0.0})
