"""Mime.

Memory: none.
Upload: in a first trip ``grad f_i(x)``, whose mean over the cohort is ``c``; in a second trip
``x - y`` after local steps with the server's momentum ``s``, which is constant in a round, and
gradients corrected by ``c - grad f_i(x; batch)``. Both are averaged with equal weights.
Server: ``x`` and the momentum ``s``.
Law: with ``beta = 0`` and one full-batch step it is FedSGD with equal client weights.
Reference: Karimireddy et al., "Breaking the centralized barrier for cross-device federated
learning" (Mime), 2021, Algorithm 1.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

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
from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import fraction, positive
from fedjax_sim.core.law import Law
from fedjax_sim.core.types import (
    Algorithm,
    Batch,
    Key,
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
    """The server's state.

    Attributes:
      variables: the model x.
      s: momentum of the base optimizer, like the parameters.
    """

    variables: Variables
    s: PyTree


class Statistics(NamedTuple):
    """What the second trip broadcasts besides ``x``, both like the parameters.

    Attributes:
      s: the server's momentum.
      c: the mean over the cohort of the gradients at ``x``.
    """

    s: PyTree
    c: PyTree


def mime(
    objective: Objective,
    *,
    lr: Annotated[float, MAY_CHANGE_ON_RESUME] = 0.1,
    beta: float = 0.9,
) -> Algorithm:
    """Mime, with SGD with momentum as the base optimizer.

    ``U(g, s) = (1 - beta) g + beta s``, ``V(c, s) = (1 - beta) c + beta s``.

    Args:
      objective: the function that clients minimise.
      lr: local learning rate (eta).
      beta: decay of the momentum, in [0, 1].

    Example:
      >>> import jax
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.quadratic()
      >>> algorithm = fs.mime(task.objective, beta=0.5)
      >>> algorithm.init(task.init(jax.random.key(0))).s
      {'x': Array([0., 0., 0., 0., 0.], dtype=float32)}
    """
    positive("mime.lr", lr)
    fraction("mime.beta", beta, zero=True)
    gradient_pass = full_gradient(objective)
    local_steps = corrected_learner(objective, lr, beta)
    aggregator = unweighted_mean()
    server = momentum_server(beta)

    def round(
        trip: Trips, key: Key, state: MimeState, memory: PyTree, roster: Roster
    ) -> tuple[MimeState, PyTree, Outcome]:
        x = Message(*state.variables)
        first = trip(
            gradient_pass,
            aggregator,
            fold_in(key, 0),
            lambda member: x,
            (),
            memory,
            roster,
            epochs=1,
        )
        c = first.upload.delta
        message = x._replace(extra=Statistics(state.s, c))
        second = trip(
            local_steps,
            aggregator,
            fold_in(key, 1),
            lambda member: message,
            (),
            first.memory,
            first.roster,
        )
        upload = second.upload._replace(extra=c)
        state = update(server, fold_in(key, 2), state, upload, second.roster)
        return state, second.memory, second.outcome

    return Algorithm(
        server.init,
        lambda variables: (),
        round,
        server.variables,
        server.broadcast,
        broadcast_model,
    )


def corrected_learner(objective: Objective, lr: float, beta: float) -> Learner:
    """Makes the local steps of lines 9 to 11, with both gradients on the same batch and key.

    Args:
      objective: the function that clients minimise.
      lr: local learning rate (eta).
      beta: decay of the momentum.
    """
    base = gradient_learner(objective, local_optimizer(lr))

    def step(
        key: Key, message: Message, memory: PyTree, local: Local, batch: Batch
    ) -> tuple[Local, Metrics]:
        at_y = gradient(objective, local.variables, key, batch)
        at_x = gradient(objective, Variables(message.params, message.state), key, batch)
        s, c = message.extra
        g = tree.add(tree.sub(at_y.params, at_x.params), c)
        y = jax.tree.map(
            lambda y, g, s: y - lr * ((1 - beta) * g + beta * s), local.variables.params, g, s
        )
        variables = Variables(y, at_y.state)
        return local._replace(variables=variables, steps=local.steps + 1), at_y.metrics

    return base._replace(step=step)


def momentum_server(beta: float) -> Server:
    """Makes the server: ``x`` becomes the mean of the ``y``, and ``s`` becomes ``V(c, s)``.

    The upload carries ``c``, the mean gradient at the old ``x``, as ``extra``.

    Args:
      beta: decay of the momentum.
    """

    def init(variables: Variables) -> MimeState:
        return MimeState(variables, tree.zeros_like(variables.params))

    def update(key: Key, state: MimeState, upload: Upload, roster: Roster) -> MimeState:
        x = Variables(
            tree.sub(state.variables.params, upload.delta),
            tree.sub(state.variables.state, upload.state),
        )
        s = jax.tree.map(lambda s, c: (1 - beta) * c + beta * s, state.s, upload.extra)
        return MimeState(x, s)

    return Server(
        init, lambda state, member: Message(*state.variables), update, lambda state: state.variables
    )


LAW = Law(
    "with beta = 0 and one full-batch step it is FedSGD with equal client weights",
    when={"beta": 0.0, "lr": 0.1},
    equals="fedsgd",
    given={"server_lr": 0.1, "aggregator": unweighted_mean()},
    local_work={"batch_size": None},
)
