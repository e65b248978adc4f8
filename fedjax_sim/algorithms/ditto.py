"""Ditto.

Memory: ``v_i``, the client's own model. Upload: FedAvg's. Server: FedAvg's. Personal step: ``v - lr (grad f_i(v) + lam (v - x))``.
Law: the global model is FedAvg's, bit for bit.
Reference: Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", 2021, Algorithm 1
(with FedAvg as its global solver).
"""

from __future__ import annotations

import optax

from fedjax_sim import clients
from fedjax_sim.aggregators import mean
from fedjax_sim.clients.learner import gradient_learner
from fedjax_sim.core.errors import not_negative, positive
from fedjax_sim.core.types import Aggregator, Algorithm, Law, Objective
from fedjax_sim.engine.federate import federate
from fedjax_sim.optimizers.corrections import Optimizer, local_optimizer, proximal
from fedjax_sim.servers.optimizer import optimizer_server


def ditto(
    objective: Objective,
    *,
    lr: float | optax.Schedule = 0.1,
    lam: float = 0.1,
    personal_lr: float | None = None,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer | None = None,
) -> Algorithm:
    """FedAvg, and beside it one personal model per client, pulled towards the global one.

    Args:
      lam: strength of the pull (lambda); 0 trains alone, large values stay at the global model.
      personal_lr: rate of the personal steps; ``lr`` by default.
      objective, lr, local, aggregator, server_optimizer: as for FedAvg.
    """
    positive("ditto.lr", lr)
    not_negative("ditto.lam", lam)
    personal = local_optimizer(lr if personal_lr is None else personal_lr, proximal(lam))
    learner = clients.ditto(
        gradient_learner(objective, local_optimizer(lr, local)), objective, personal
    )
    return federate(
        learner, aggregator or mean(), optimizer_server(server_optimizer or optax.sgd(1.0))
    )


LAW = Law("its global model is FedAvg's, bit for bit", tolerance=0.0)
