"""FedAvg with sparse uploads and error feedback.

Memory: the residual, what was not sent yet. Upload: the largest entries of ``x - y`` plus residual. Server: as FedAvg's.
Law: sending everything is FedAvg; what was sent plus the residual is what was wanted.
Reference: Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", 2018, Algorithm 1, on the pseudo-gradient.
"""

from __future__ import annotations

import optax

from fedjax_sim import clients
from fedjax_sim.aggregators import mean
from fedjax_sim.clients.learner import gradient_learner
from fedjax_sim.core.errors import positive
from fedjax_sim.core.types import Aggregator, Algorithm, Law, Objective
from fedjax_sim.engine.federate import federate
from fedjax_sim.optimizers.corrections import Optimizer, local_optimizer
from fedjax_sim.servers.optimizer import optimizer_server


def error_feedback(
    objective: Objective,
    *,
    lr: float | optax.Schedule = 0.1,
    fraction: float = 0.1,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer | None = None,
) -> Algorithm:
    """Each client sends the largest ``fraction`` of every leaf of its pseudo-gradient and carries the rest to its next round.

    Args:
      fraction: share of entries sent, by magnitude, at least one of each leaf.
      objective, lr, local, aggregator, server_optimizer: as for FedAvg.
    """
    positive("error_feedback.lr", lr)
    learner = clients.error_feedback(
        gradient_learner(objective, local_optimizer(lr, local)), clients.top_k(fraction)
    )
    return federate(
        learner, aggregator or mean(), optimizer_server(server_optimizer or optax.sgd(1.0))
    )


LAW = Law("sending everything is FedAvg", {"fraction": 1.0})
