"""SCAFFOLD.

Memory: ``c_i``, the client's control variate, like the parameters.
Upload: ``x - y`` and ``c_i+ - c_i``, averaged with equal weights.
Server: ``x`` and the control variate ``c``.
Law: in the first round, with all control variates zero, it is FedAvg; in every round ``c`` is the
mean of all ``c_i``.
Reference: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
2020, Algorithm 1.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_sim.aggregators import unweighted_mean
from fedjax_sim.clients.learner import (
    GradientSum,
    Local,
    add_batch,
    average,
    empty_sum,
    gradient,
    gradient_learner,
)
from fedjax_sim.core import tree
from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import positive, require
from fedjax_sim.core.law import Law
from fedjax_sim.core.types import (
    Algorithm,
    Batch,
    Key,
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
    """The server's state.

    Attributes:
      served: the model and its optimizer.
      c: the control variate, like the parameters.
    """

    served: OptimizerServerState
    c: PyTree


def scaffold(
    objective: Objective,
    *,
    lr: Annotated[float, MAY_CHANGE_ON_RESUME] = 0.1,
    option: Literal["I", "II"] = "II",
    server_optimizer: Optimizer | None = None,
) -> Algorithm:
    """Local steps corrected by control variates, against the drift of clients with different data.

    Args:
      objective: the function that clients minimise.
      lr: local learning rate (eta_l), a number; the local optimizer is plain SGD, which option II
        needs.
      option: new value of ``c_i`` (line 12). ``"I"``: the gradient at ``x`` over the round's local
        batches (exact for whole epochs, one more gradient per step). ``"II"``: ``c_i - c + (x - y)
        / (K lr)``, without another gradient.
      server_optimizer: optax optimizer on the mean pseudo-gradient; by default SGD with rate 1
        (eta_g).

    Example:
      >>> import jax
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.quadratic()
      >>> algorithm = fs.scaffold(task.objective, option="I")
      >>> state = algorithm.init(task.init(jax.random.key(0)))
      >>> state.server.c
      {'x': Array([0., 0., 0., 0., 0.], dtype=float32)}
    """
    positive("scaffold.lr", lr)
    require(
        not callable(lr),
        "scaffold.lr must be one number",
        got="a schedule",
        fix="use a constant rate: option II divides by K lr",
        setting="lr",
    )
    require(
        option in ("I", "II"),
        "scaffold.option must be 'I' or 'II'",
        got=repr(option),
        fix="use 'II' unless gradients at x are wanted",
        setting="option",
    )
    local = gradient_learner(
        objective,
        local_optimizer(lr, drift()),
        lambda message, memory: {"drift": tree.sub(message.extra, memory)},
    )
    learner = option_one(objective, local) if option == "I" else option_two(local, lr)
    server = with_control_variate(optimizer_server(server_optimizer or optax.sgd(1.0)))
    return federate(learner, unweighted_mean(), server)


def option_two(local: Learner, lr: float) -> Learner:
    """Option II of line 12: ``c_i`` becomes ``c_i - c + (x - y) / (K lr)``.

    Args:
      local: the corrected local steps, with the memory ``c_i``.
      lr: their learning rate.
    """

    def finish(
        key: Key, message: Message, memory: PyTree, after: Local
    ) -> tuple[Upload, PyTree, Metrics]:
        upload, c_i, metrics = local.finish(key, message, memory, after)
        steps = jnp.maximum(after.steps, 1)
        mean_gradient = tree.scale(1 / (steps * lr), upload.delta)  # (x - y) / (K lr)
        change = tree.sub(mean_gradient, message.extra)
        return upload._replace(extra=change), tree.add(c_i, change), metrics

    return local._replace(init=zero_control_variate, finish=finish)


class OptionOneLocal(NamedTuple):
    """Local state of option I.

    Attributes:
      local: that of the local steps.
      anchor: the sum of the gradients at ``x`` so far.
    """

    local: Local
    anchor: GradientSum


def option_one(objective: Objective, local: Learner) -> Learner:
    """Option I of line 12: ``c_i`` becomes the gradient at ``x`` over the batches of this round.

    Args:
      objective: the function that clients minimise.
      local: the corrected local steps, with the memory ``c_i``.
    """

    def start(key: Key, message: Message, memory: PyTree) -> OptionOneLocal:
        return OptionOneLocal(local.start(key, message, memory), empty_sum(message.params))

    def step(
        key: Key, message: Message, memory: PyTree, before: OptionOneLocal, batch: Batch
    ) -> tuple[OptionOneLocal, Metrics]:
        after, metrics = local.step(key, message, memory, before.local, batch)
        grad = gradient(objective, Variables(message.params, message.state), key, batch)
        return OptionOneLocal(after, add_batch(before.anchor, grad.params, batch)), metrics

    def finish(
        key: Key, message: Message, memory: PyTree, after: OptionOneLocal
    ) -> tuple[Upload, PyTree, Metrics]:
        upload, c_i, metrics = local.finish(key, message, memory, after.local)
        renewed = average(after.anchor, c_i)
        return upload._replace(extra=tree.sub(renewed, c_i)), renewed, metrics

    return local._replace(init=zero_control_variate, start=start, step=step, finish=finish)


def zero_control_variate(variables: Variables) -> PyTree:
    """Returns the initial ``c_i`` and ``c``: zero, so that ``c = mean c_i`` from the start."""
    return tree.zeros_like(variables.params)


def with_control_variate(inner: Server) -> Server:
    """Wraps a server that also keeps ``c`` and broadcasts it (lines 3, 16 and 17).

    Args:
      inner: the server that keeps the model.
    """

    def init(variables: Variables) -> ScaffoldState:
        return ScaffoldState(inner.init(variables), zero_control_variate(variables))

    def broadcast(state: ScaffoldState, member: Member) -> Message:
        return inner.broadcast(state.served, member)._replace(extra=state.c)

    def update(key: Key, state: ScaffoldState, upload: Upload, roster: Roster) -> ScaffoldState:
        share = roster.count / roster.population  # |S| / N
        served = inner.update(key, state.served, upload, roster)
        return ScaffoldState(served, tree.axpy(share, upload.extra, state.c))

    return Server(init, broadcast, update, lambda state: inner.variables(state.served))


LAW = Law(
    "in its first round it is FedAvg with equal client weights; c stays the mean of all c_i",
    equals="fedavg",
    given={"aggregator": unweighted_mean()},
    rounds=1,
    conserved=lambda state, memory: (
        state.server.c,
        jax.tree.map(lambda table: table.mean(axis=0), memory),
    ),
)
