"""FedSGD.

Memory: none. Upload: ``grad f_i(x)`` over all of the client's examples. Server: one gradient step on the weighted mean.
Law: FedAvg with one full-batch local step of the same rate.
Reference: McMahan et al. 2017, section 2 (FederatedSGD).
"""

from __future__ import annotations

import optax

from fedjax_sim.aggregators import mean
from fedjax_sim.clients.learner import full_gradient
from fedjax_sim.core.errors import positive
from fedjax_sim.core.types import Aggregator, Algorithm, Law, Objective
from fedjax_sim.engine.federate import federate
from fedjax_sim.optimizers.corrections import Optimizer
from fedjax_sim.servers.optimizer import optimizer_server


def fedsgd(
    objective: Objective,
    *,
    server_lr: float = 0.1,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer | None = None,
) -> Algorithm:
    """Large-batch gradient descent over the cohort: each client passes once over its data, whatever the local work says.

    Args:
      objective: what clients minimise.
      server_lr: rate of the step.
      aggregator: by default the mean weighted by examples.
      server_optimizer: replaces SGD with ``server_lr``.
    """
    positive("fedsgd.server_lr", server_lr)
    server = optimizer_server(server_optimizer or optax.sgd(server_lr))
    return federate(full_gradient(objective), aggregator or mean(), server, epochs=1)


LAW = Law(
    "it is FedAvg with one full-batch local step of the same rate",
    {"server_lr": 0.1},
    "fedavg",
    {"lr": 0.1},
    {"batch_size": None},
)
