"""FedAvg.

Memory: none.
Upload: ``x - y`` after the local steps, weighted by examples.
Server: ``x - mean``, or any optax optimizer on the mean.
Law: one full-batch local step per round is gradient descent on the pooled data.
Reference: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", 2017, Algorithm 1.
"""

from __future__ import annotations

from typing import Annotated

import optax

from fedjax_sim.aggregators import mean
from fedjax_sim.clients.learner import gradient_learner
from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import positive
from fedjax_sim.core.law import Law
from fedjax_sim.core.types import Aggregator, Algorithm, Objective
from fedjax_sim.engine.federate import federate
from fedjax_sim.optimizers.corrections import Optimizer, local_optimizer
from fedjax_sim.servers.optimizer import optimizer_server


def fedavg(
    objective: Objective,
    *,
    lr: Annotated[float | optax.Schedule, MAY_CHANGE_ON_RESUME] = 0.1,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer | None = None,
) -> Algorithm:
    """Federated averaging.

    Args:
      objective: the function that clients minimise.
      lr: local learning rate (eta_l), or a schedule over the local steps of one round.
      local: optax transform of the local gradient before the step, such as clipping or
        ``optax.trace(0.9)``.
      aggregator: how uploads are combined; by default the mean weighted by examples.
      server_optimizer: optax optimizer on the averaged pseudo-gradient; by default SGD with rate 1,
        which is plain averaging. ``optax.adam(...)`` here is FedOpt with optax's bias-corrected
        Adam; ``fedadam`` is the paper's.

    Example:
      >>> import jax
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.quadratic()
      >>> algorithm = fs.fedavg(task.objective, lr=0.5)
      >>> state = algorithm.init(task.init(jax.random.key(0)))
      >>> type(state.server).__name__
      'OptimizerServerState'
    """
    positive("fedavg.lr", lr)
    learner = gradient_learner(objective, local_optimizer(lr, local))
    return federate(
        learner, aggregator or mean(), optimizer_server(server_optimizer or optax.sgd(1.0))
    )


LAW = Law(
    "with one full-batch local step, rate 0.1, it is FedSGD with server rate 0.1",
    when={"lr": 0.1},
    equals="fedsgd",
    given={"server_lr": 0.1},
    local_work={"batch_size": None},
)
