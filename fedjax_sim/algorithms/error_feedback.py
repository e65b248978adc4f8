"""FedAvg with sparse uploads and error feedback.

Memory: the residual, the part of earlier pseudo-gradients that was not sent, like the parameters.
Upload: the largest entries of ``x - y`` plus the residual.
Server: FedAvg's.
Law: sending everything is FedAvg; sent uploads plus the residual add up to the pseudo-gradients.
Reference: Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", 2018, Algorithm 1, on the
pseudo-gradient.
"""

from __future__ import annotations

from typing import Annotated

import optax

from fedjax_sim import clients
from fedjax_sim.aggregators import mean
from fedjax_sim.clients.learner import gradient_learner
from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import positive
from fedjax_sim.core.law import Law
from fedjax_sim.core.types import Aggregator, Algorithm, Objective
from fedjax_sim.engine.federate import federate
from fedjax_sim.optimizers.corrections import Optimizer, local_optimizer
from fedjax_sim.servers.optimizer import optimizer_server


def error_feedback(
    objective: Objective,
    *,
    lr: Annotated[float | optax.Schedule, MAY_CHANGE_ON_RESUME] = 0.1,
    fraction: float = 0.1,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer | None = None,
) -> Algorithm:
    """FedAvg in which each client sends only the largest entries of its pseudo-gradient.

    What a client does not send is added to its pseudo-gradient in its next round.

    Args:
      objective: the function that clients minimise.
      lr: local learning rate (eta_l), or a schedule over the local steps of one round.
      fraction: share of each leaf's entries that is sent, largest magnitudes first, at least one
        entry; in (0, 1].
      local: optax transform of the local gradient before the step, such as clipping or
        ``optax.trace(0.9)``.
      aggregator: how uploads are combined; by default the mean weighted by examples.
      server_optimizer: optax optimizer on the averaged pseudo-gradient; by default SGD with rate 1,
        which is plain averaging.

    Example:
      >>> import jax
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.quadratic()
      >>> algorithm = fs.error_feedback(task.objective, fraction=0.2)
      >>> algorithm.memory(task.init(jax.random.key(0))).own  # the residual
      {'x': Array([0., 0., 0., 0., 0.], dtype=float32)}
    """
    positive("error_feedback.lr", lr)
    learner = clients.error_feedback(
        gradient_learner(objective, local_optimizer(lr, local)), clients.top_k(fraction)
    )
    return federate(
        learner, aggregator or mean(), optimizer_server(server_optimizer or optax.sgd(1.0))
    )


LAW = Law("sending everything is FedAvg", when={"fraction": 1.0})
