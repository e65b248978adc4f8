"""FedSGD.

Memory: none.
Upload: ``grad f_i(x)`` over all of the client's examples.
Server: one gradient step on the weighted mean.
Law: FedAvg with one full-batch local step of the same rate.
Reference: McMahan et al. 2017, section 2 (FederatedSGD).
"""

from __future__ import annotations

from typing import Annotated

import optax

from fedjax_sim.aggregators import mean
from fedjax_sim.clients.learner import full_gradient
from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import positive
from fedjax_sim.core.law import Law
from fedjax_sim.core.types import Aggregator, Algorithm, Objective
from fedjax_sim.engine.federate import federate
from fedjax_sim.optimizers.corrections import Optimizer
from fedjax_sim.servers.optimizer import optimizer_server


def fedsgd(
    objective: Objective,
    *,
    server_lr: Annotated[float, MAY_CHANGE_ON_RESUME] = 0.1,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer | None = None,
) -> Algorithm:
    """Large-batch gradient descent over the cohort.

    Each client passes once over its examples, whatever the local work says.

    Args:
      objective: the function that clients minimise.
      server_lr: learning rate of the step.
      aggregator: how uploads are combined; by default the mean weighted by examples.
      server_optimizer: optax optimizer on the mean gradient, instead of SGD with ``server_lr``.

    Example:
      >>> import jax
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.quadratic()
      >>> algorithm = fs.fedsgd(task.objective, server_lr=0.5)
      >>> state = algorithm.init(task.init(jax.random.key(0)))
      >>> type(state.server).__name__
      'OptimizerServerState'
    """
    positive("fedsgd.server_lr", server_lr)
    server = optimizer_server(server_optimizer or optax.sgd(server_lr))
    return federate(full_gradient(objective), aggregator or mean(), server, epochs=1)


LAW = Law(
    "it is FedAvg with one full-batch local step of the same rate",
    when={"server_lr": 0.1},
    equals="fedavg",
    given={"lr": 0.1},
    local_work={"batch_size": None},
)
