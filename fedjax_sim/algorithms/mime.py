"""Mime.

Memory: none. Upload: in a first trip ``grad f_i(x)``, whose mean over the cohort is ``c``; in a second one ``x - y`` after local steps
with the server's momentum ``s``, which stays fixed, and gradients corrected by ``c - grad f_i(x; batch)``. Server: ``x``, ``s``.
Law: with ``beta = 0`` and one full-batch step, all clients alike, it is FedSGD.
Reference: Karimireddy et al., "Breaking the centralized barrier for cross-device federated learning" (Mime), 2021, Algorithm 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax.random import fold_in

from fedjax_sim.aggregators import unweighted_mean
from fedjax_sim.clients.learner import (
    Local,
    broadcast_model,
    full_gradient,
    gradient,
    gradient_learner,
)
from fedjax_sim.core import tree
from fedjax_sim.core.errors import fraction, positive
from fedjax_sim.core.types import (
    Algorithm,
    Batch,
    Key,
    Law,
    Learner,
    Message,
    Metrics,
    Objective,
    Outcome,
    PyTree,
    Roster,
    Server,
    Upload,
    Variables,
)
from fedjax_sim.engine import Trips
from fedjax_sim.engine.federate import update
from fedjax_sim.optimizers.corrections import local_optimizer


class MimeState(NamedTuple):
    """The server's state: the model, and the base optimizer's momentum ``s``, like the parameters."""

    variables: Variables
    s: PyTree


class Statistics(NamedTuple):
    """What goes down in the second trip beside ``x``."""

    s: PyTree
    c: PyTree


def mime(objective: Objective, *, lr: float = 0.1, beta: float = 0.9) -> Algorithm:
    """Mime with SGD with momentum as the base: ``U(g, s) = (1 - beta) g + beta s``, ``V(c, s) = (1 - beta) c + beta s``.

    Args:
      objective: what clients minimise.
      lr: local learning rate (eta).
      beta: momentum.
    """
    positive("mime.lr", lr)
    fraction("mime.beta", beta, zero=True)
    look, learn, average, keeper = (
        full_gradient(objective),
        corrected(objective, lr, beta),
        unweighted_mean(),
        server(beta),
    )

    def round(
        trip: Trips, key: Key, state: MimeState, memory: PyTree, roster: Roster
    ) -> tuple[MimeState, PyTree, Outcome]:
        x = Message(*state.variables)
        seen = trip(look, average, fold_in(key, 0), lambda member: x, (), memory, roster, epochs=1)
        c = seen.upload.delta
        down = x._replace(extra=Statistics(state.s, c))
        back = trip(
            learn, average, fold_in(key, 1), lambda member: down, (), seen.memory, seen.roster
        )
        after = update(keeper, fold_in(key, 2), state, back.upload._replace(extra=c), back.roster)
        return after, back.memory, back.outcome

    return Algorithm(
        keeper.init,
        lambda variables: (),
        round,
        keeper.variables,
        keeper.broadcast,
        broadcast_model,
    )


def corrected(objective: Objective, lr: float, beta: float) -> Learner:
    """The local steps of lines 9 to 11: both gradients on the same batch, with the same key."""
    base = gradient_learner(objective, local_optimizer(lr))

    def step(
        key: Key, message: Message, memory: PyTree, local: Local, batch: Batch
    ) -> tuple[Local, Metrics]:
        here = gradient(objective, local.variables, key, batch)
        there = gradient(objective, Variables(message.params, message.state), key, batch)
        s, c = message.extra
        g = tree.add(tree.sub(here.params, there.params), c)
        y = jax.tree.map(
            lambda y, g, s: y - lr * ((1 - beta) * g + beta * s), local.variables.params, g, s
        )
        return local._replace(
            variables=Variables(y, here.state), steps=local.steps + 1
        ), here.metrics

    return base._replace(step=step)


def server(beta: float) -> Server:
    """``x`` becomes the mean of the ``y``; ``s`` moves by the mean gradient at the old ``x``, which the upload carries as ``extra``."""

    def after(key: Key, state: MimeState, upload: Upload, roster: Roster) -> MimeState:
        x = Variables(
            tree.sub(state.variables.params, upload.delta),
            tree.sub(state.variables.state, upload.state),
        )
        return MimeState(
            x, jax.tree.map(lambda s, c: (1 - beta) * c + beta * s, state.s, upload.extra)
        )

    def init(variables: Variables) -> MimeState:
        return MimeState(variables, tree.zeros_like(variables.params))

    return Server(
        init, lambda state, member: Message(*state.variables), after, lambda state: state.variables
    )


LAW = Law(
    "with beta = 0 and one full-batch step it is FedSGD with all clients alike",
    {"beta": 0.0, "lr": 0.1},
    "fedsgd",
    {"server_lr": 0.1, "aggregator": unweighted_mean()},
    {"batch_size": None},
)
