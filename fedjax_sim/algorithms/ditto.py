"""Ditto.

Memory: ``v_i``, the client's personal model, with the step ``v - lr (grad f_i(v) + lam (v - x))``.
Upload: FedAvg's.
Server: FedAvg's.
Law: the global model is FedAvg's, bit for bit.
Reference: Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", 2021,
Algorithm 1 (with FedAvg as its global solver).
"""

from __future__ import annotations

from typing import Annotated

import optax

from fedjax_sim import clients
from fedjax_sim.aggregators import mean
from fedjax_sim.clients.learner import gradient_learner
from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import not_negative, positive
from fedjax_sim.core.law import Law
from fedjax_sim.core.types import Aggregator, Algorithm, Objective
from fedjax_sim.engine.federate import federate
from fedjax_sim.optimizers.corrections import Optimizer, local_optimizer, proximal
from fedjax_sim.servers.optimizer import optimizer_server


def ditto(
    objective: Objective,
    *,
    lr: Annotated[float | optax.Schedule, MAY_CHANGE_ON_RESUME] = 0.1,
    lam: float = 0.1,
    personal_lr: Annotated[float | None, MAY_CHANGE_ON_RESUME] = None,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer | None = None,
) -> Algorithm:
    """FedAvg with one personal model per client, regularised towards the global model.

    Args:
      objective: the function that clients minimise.
      lr: local learning rate (eta_l), or a schedule over the local steps of one round.
      lam: weight of the term ``lam/2 |v - x|^2`` (lambda), from 0 on; 0 trains each personal model
        on its client alone.
      personal_lr: learning rate of the personal steps; by default ``lr``.
      local: optax transform of the local gradient before the step, such as clipping or
        ``optax.trace(0.9)``.
      aggregator: how uploads are combined; by default the mean weighted by examples.
      server_optimizer: optax optimizer on the averaged pseudo-gradient; by default SGD with rate 1,
        which is plain averaging.

    Example:
      >>> import jax
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.quadratic()
      >>> algorithm = fs.ditto(task.objective, lam=0.5)
      >>> algorithm.memory(task.init(jax.random.key(0))).own.params
      {'x': Array([0., 0., 0., 0., 0.], dtype=float32)}
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
