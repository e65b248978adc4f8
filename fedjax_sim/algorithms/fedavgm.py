"""FedAvgM.

Memory: none. Upload: ``x - y``. Server: momentum on the averaged pseudo-gradient, ``v = beta v + delta``, ``x = x - lr v``.
Law: ``momentum = 0`` with server rate 1 is FedAvg.
Reference: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019,
section 3.
"""

from __future__ import annotations

import optax

from fedjax_sim.algorithms.fedavg import fedavg
from fedjax_sim.core.errors import fraction, positive
from fedjax_sim.core.types import Aggregator, Algorithm, Law, Objective
from fedjax_sim.optimizers.corrections import Optimizer


def fedavgm(
    objective: Objective,
    *,
    lr: float | optax.Schedule = 0.1,
    server_lr: float = 1.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """FedAvg with server momentum.

    Args:
      server_lr: the server's rate.
      momentum: beta, share of the old velocity that is kept.
      nesterov: whether the velocity looks ahead.
      objective, lr, local, aggregator: as for FedAvg.
    """
    positive("fedavgm.server_lr", server_lr)
    fraction("fedavgm.momentum", momentum, zero=True)
    server = optax.sgd(server_lr, momentum=momentum, nesterov=nesterov)
    return fedavg(objective, lr=lr, local=local, aggregator=aggregator, server_optimizer=server)


LAW = Law("momentum = 0 is FedAvg", {"momentum": 0.0})
