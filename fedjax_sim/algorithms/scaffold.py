"""SCAFFOLD.

Memory: ``c_i``, the client's control variate. Upload: ``x - y`` and ``c_i+ - c_i``, all clients alike. Server: ``x``, ``c``.
Law: in the first round, with all control variates zero, it is FedAvg; ever after, ``c`` is the mean of all ``c_i``.
Reference: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", 2020, Algorithm 1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_sim.aggregators import unweighted_mean
from fedjax_sim.clients.learner import (
    Local,
    GradientSum,
    add_batch,
    average,
    empty_sum,
    gradient,
    gradient_learner,
)
from fedjax_sim.core import tree
from fedjax_sim.core.errors import positive, require
from fedjax_sim.core.types import (
    Algorithm,
    Batch,
    Key,
    Law,
    Learner,
    Member,
    Message,
    Metrics,
    Objective,
    PyTree,
    Roster,
    Server,
    Upload,
    Variables,
)
from fedjax_sim.engine.federate import federate
from fedjax_sim.optimizers.corrections import Optimizer, drift, local_optimizer
from fedjax_sim.servers.optimizer import OptimizerServerState, optimizer_server


class ScaffoldState(NamedTuple):
    """The server's state: the model with its optimizer, and ``c``, like the parameters."""

    served: OptimizerServerState
    c: PyTree


def scaffold(
    objective: Objective,
    *,
    lr: float = 0.1,
    option: Literal["I", "II"] = "II",
    server_optimizer: Optimizer | None = None,
) -> Algorithm:
    """Local steps corrected by control variates, so that clients with different data do not drift apart.

    Args:
      objective: what clients minimise.
      lr: local learning rate (eta_l); the local step is plain SGD, which option II needs.
      option: how ``c_i`` is renewed (line 12). ``"I"``: the gradient at ``x`` over the round's local batches (exact for whole
        epochs, one more gradient per step). ``"II"``: ``c_i - c + (x - y) / (K lr)``, at no cost.
      server_optimizer: on the mean pseudo-gradient; by default SGD with rate 1 (eta_g).
    """
    positive("scaffold.lr", lr)
    require(
        not callable(lr),
        "scaffold.lr must be one number",
        got="a schedule",
        fix="option II divides by K lr; use a constant rate",
    )
    require(
        option in ("I", "II"),
        "scaffold.option must be 'I' or 'II'",
        got=repr(option),
        fix="use 'II' unless gradients at x are wanted",
    )
    local = gradient_learner(
        objective,
        local_optimizer(lr, drift()),
        lambda message, memory: {"drift": tree.sub(message.extra, memory)},
    )
    renew = at_anchor(objective, local) if option == "I" else from_path(local, lr)
    return federate(
        renew, unweighted_mean(), controlled(optimizer_server(server_optimizer or optax.sgd(1.0)))
    )


def from_path(local: Learner, lr: float) -> Learner:
    """Option II: the path itself tells the mean gradient that was followed."""

    def finish(
        key: Key, message: Message, memory: PyTree, after: Local
    ) -> tuple[Upload, PyTree, Metrics]:
        upload, c_i, metrics = local.finish(key, message, memory, after)
        steps = jnp.maximum(after.steps, 1)
        followed = tree.sub(
            tree.scale(1 / (steps * lr), upload.delta), message.extra
        )  # (x - y) / (K lr) - c
        return upload._replace(extra=followed), tree.add(c_i, followed), metrics

    return local._replace(init=no_control, finish=finish)


class AtAnchor(NamedTuple):
    """Local state of option I: the descent, and the gradients at ``x`` seen on its way."""

    descent: Local
    anchor: GradientSum


def at_anchor(objective: Objective, local: Learner) -> Learner:
    """Option I: ``c_i`` becomes the gradient at ``x`` over the batches of this round."""

    def start(key: Key, message: Message, memory: PyTree) -> AtAnchor:
        return AtAnchor(local.start(key, message, memory), empty_sum(message.params))

    def step(
        key: Key, message: Message, memory: PyTree, now: AtAnchor, batch: Batch
    ) -> tuple[AtAnchor, Metrics]:
        after, metrics = local.step(key, message, memory, now.descent, batch)
        grad = gradient(objective, Variables(message.params, message.state), key, batch)
        return AtAnchor(after, add_batch(now.anchor, grad.params, batch)), metrics

    def finish(
        key: Key, message: Message, memory: PyTree, now: AtAnchor
    ) -> tuple[Upload, PyTree, Metrics]:
        upload, c_i, metrics = local.finish(key, message, memory, now.descent)
        renewed = average(now.anchor, c_i)
        return upload._replace(extra=tree.sub(renewed, c_i)), renewed, metrics

    return local._replace(init=no_control, start=start, step=step, finish=finish)


def no_control(variables: Variables) -> PyTree:
    """Control variates before the first round: zero, on the client as on the server, so that ``c = mean c_i`` from the start."""
    return tree.zeros_like(variables.params)


def controlled(inner: Server) -> Server:
    """A server that also keeps ``c`` and sends it along (lines 3, 16 and 17)."""

    def init(variables: Variables) -> ScaffoldState:
        return ScaffoldState(inner.init(variables), no_control(variables))

    def broadcast(state: ScaffoldState, member: Member) -> Message:
        return inner.broadcast(state.served, member)._replace(extra=state.c)

    def update(key: Key, state: ScaffoldState, upload: Upload, roster: Roster) -> ScaffoldState:
        share = roster.count / roster.population  # |S| / N
        return ScaffoldState(
            inner.update(key, state.served, upload, roster), tree.axpy(share, upload.extra, state.c)
        )

    return Server(init, broadcast, update, lambda state: inner.variables(state.served))


LAW = Law(
    "in its first round it is FedAvg with all clients alike; c stays the mean of all c_i",
    equals="fedavg",
    given={"aggregator": unweighted_mean()},
    rounds=1,
    conserved=lambda state, memory: (
        state.server.c,
        jax.tree.map(lambda table: table.mean(axis=0), memory),
    ),
)
