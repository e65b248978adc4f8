"""FedNova.

Memory: none.
Upload: ``(x - y) / tau`` and ``tau``, the number of local steps, weighted by examples.
Server: ``x - tau_eff d``, with ``d`` the mean of ``(x - y) / tau`` and ``tau_eff`` that of ``tau``.
Law: if all clients take the same number of steps it is FedAvg.
Reference: Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
Optimization", 2020, Algorithm 1 and equation 8, with ``a_i`` of plain SGD.
"""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp
import optax

import fedjax_sim as fs
from fedjax_sim.aggregators import mean
from fedjax_sim.clients.learner import Local, gradient_learner
from fedjax_sim.core import tree
from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import positive
from fedjax_sim.core.types import Key, Metrics, PyTree
from fedjax_sim.optimizers.corrections import local_optimizer
from fedjax_sim.servers.optimizer import optimizer_server

LAW = fs.Law(
    "if all clients take the same number of steps it is FedAvg",
    equals="fedavg",
    local_work={"steps": 2},
)


@fs.register("algorithm", law=LAW, card=__doc__)
def fednova(
    objective: fs.Objective, *, lr: Annotated[float, MAY_CHANGE_ON_RESUME] = 0.1
) -> fs.Algorithm:
    """Averages the clients' mean steps, so that a client with more local steps does not count more.

    Args:
      objective: what clients minimise.
      lr: local learning rate (eta).

    >>> import fedjax_sim as fs
    >>> task = fs.tasks.quadratic(clients=4)
    >>> type(fednova(task.objective, lr=0.5)).__name__
    'Algorithm'
    """
    positive("fednova.lr", lr)
    learner = normalised(gradient_learner(objective, local_optimizer(lr)))
    aggregator = fs.chain(fs.stage(finalize=rescaled), mean())
    return fs.federate(learner, aggregator, optimizer_server(optax.sgd(1.0)))


def normalised(learner: fs.Learner) -> fs.Learner:
    """Divides the pseudo-gradient by the number of local steps, and sends that number along."""

    def finish(
        key: Key, message: fs.Message, memory: PyTree, local: Local
    ) -> tuple[fs.Upload, PyTree, Metrics]:
        upload, memory, metrics = learner.finish(key, message, memory, local)
        tau = jnp.maximum(local.steps, 1).astype(jnp.float32)
        return upload._replace(delta=(tree.scale(1 / tau, upload.delta), tau)), memory, metrics

    return learner._replace(finish=finish)


def rescaled(
    key: Key, state: PyTree, upload: fs.Upload, stats: PyTree
) -> tuple[fs.Upload, PyTree, Metrics]:
    """Multiplies the mean step by the effective number of steps (equation 8)."""
    step, tau_eff = upload.delta
    return upload._replace(delta=tree.scale(tau_eff, step)), state, {}
