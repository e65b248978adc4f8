"""Wrappers ``Learner -> Learner`` that keep a part of the model in client memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from fedjax_sim.clients.learner import gradient
from fedjax_sim.core import tree
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
    Trip,
    Upload,
    Variables,
)


class Private(NamedTuple):
    """Memory or local state of a wrapped learner.

    Attributes:
      inner: that of the learner inside.
      own: what the wrapper adds; each wrapper says what it is.
    """

    inner: PyTree
    own: PyTree


def ditto(
    learner: Learner, objective: Objective, optimizer: optax.GradientTransformation
) -> Learner:
    """Trains a personal model beside the learner's, on the same batches.

    Reference: Li et al. 2021, Algorithm 1.

    Args:
      learner: the learner that the server communicates with; its results do not change.
      objective: the personal model's objective.
      optimizer: the personal model's optimizer, which starts again in every round. With
        ``proximal(lam)`` in it, the personal model stays near the anchor.

    Returns:
      A learner whose memory is ``Private(inner, own)``: the learner's memory, and the personal
      model's :class:`Variables`. Its ``personal`` slot returns the personal model. It reports the
      objective's metrics of the personal model as ``personal_...``.

    Example:
      >>> import jax
      >>> import optax
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.clients.learner import gradient_learner
      >>> task = fs.tasks.quadratic()
      >>> inner = gradient_learner(task.objective, optax.sgd(0.1))
      >>> learner = fs.clients.ditto(inner, task.objective, optax.sgd(0.1))
      >>> learner.init(task.init(jax.random.key(0))).own
      Variables(params={'x': Array([0., 0., 0., 0., 0.], dtype=float32)}, state=())
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(variables: Variables) -> Private:
        return Private(learner.init(variables), variables)

    def start(key: Key, message: Message, memory: Private) -> Private:
        own = (memory.own, optimizer.init(memory.own.params))
        return Private(learner.start(key, message, memory.inner), own)

    def step(
        key: Key, message: Message, memory: Private, local: Private, batch: Batch
    ) -> tuple[Private, Metrics]:
        inner, metrics = learner.step(key, message, memory.inner, local.inner, batch)
        own, state = local.own
        grad = gradient(objective, own, jax.random.fold_in(key, 1), batch)
        updates, state = optimizer.update(grad.params, state, own.params, anchor=message.params)
        own = Variables(optax.apply_updates(own.params, updates), grad.state)
        personal = {f"personal_{name}": value for name, value in grad.metrics.items()}
        return Private(inner, (own, state)), {**metrics, **personal}

    def finish(
        key: Key, message: Message, memory: Private, local: Private
    ) -> tuple[Upload, Private, Metrics]:
        upload, inner, metrics = learner.finish(key, message, memory.inner, local.inner)
        return upload, Private(inner, local.own[0]), metrics

    return Learner(init, start, step, finish, lambda message, memory: memory.own)


def private_state(learner: Learner) -> Learner:
    """Keeps batch statistics in client memory; they are never sent (FedBN, Li et al. 2021).

    Args:
      learner: the learner; it starts from the client's own statistics, not from the message's.

    Returns:
      A learner whose memory is ``Private(inner, own)``: the learner's memory, and the client's
      batch statistics, like ``Variables.state``. Its upload's ``state`` is zero.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.clients.learner import gradient_learner
      >>> inner = gradient_learner(fs.tasks.quadratic().objective, optax.sgd(0.1))
      >>> learner = fs.clients.private_state(inner)
      >>> learner.init(fs.Variables({"x": jnp.zeros(5)}, {"mean": jnp.ones(2)})).own
      {'mean': Array([1., 1.], dtype=float32)}
    """

    def with_own_state(message: Message, memory: Private) -> Message:
        return message._replace(state=memory.own)

    def init(variables: Variables) -> Private:
        return Private(learner.init(variables), variables.state)

    def start(key: Key, message: Message, memory: Private) -> PyTree:
        return learner.start(key, with_own_state(message, memory), memory.inner)

    def step(
        key: Key, message: Message, memory: Private, local: PyTree, batch: Batch
    ) -> tuple[PyTree, Metrics]:
        return learner.step(key, with_own_state(message, memory), memory.inner, local, batch)

    def finish(
        key: Key, message: Message, memory: Private, local: PyTree
    ) -> tuple[Upload, Private, Metrics]:
        message = with_own_state(message, memory)
        upload, inner, metrics = learner.finish(key, message, memory.inner, local)
        statistics = tree.sub(memory.own, upload.state)
        nothing = tree.zeros_like(upload.state)
        return upload._replace(state=nothing), Private(inner, statistics), metrics

    def personal(message: Message, memory: Private) -> Variables:
        return learner.personal(with_own_state(message, memory), memory.inner)

    return Learner(init, start, step, finish, personal)


def private_statistics(algorithm: Algorithm) -> Algorithm:
    """Wraps the learner of every trip of an algorithm in :func:`private_state`.

    The global model keeps the batch statistics that it was initialised with: evaluate models with
    batch normalisation by their personal metrics.

    Args:
      algorithm: any algorithm.

    Returns:
      An algorithm whose client memory is ``Private(inner, own)``: the algorithm's client memory,
      and the client's batch statistics.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> algorithm = fs.fedavg(fs.tasks.quadratic().objective)
      >>> algorithm = fs.clients.private_statistics(algorithm)
      >>> algorithm.memory(fs.Variables({"x": jnp.zeros(5)}, {"mean": jnp.ones(2)}))
      Private(inner=(), own={'mean': Array([1., 1.], dtype=float32)})
    """

    def memory(variables: Variables) -> Private:
        return Private(algorithm.memory(variables), variables.state)

    def round(
        trip: Any, key: Key, state: PyTree, memory: Private, roster: Roster
    ) -> tuple[PyTree, Private, Outcome]:
        def private_trip(learner: Learner, *args: Any, **kwargs: Any) -> Trip:
            return trip(private_state(learner), *args, **kwargs)

        return algorithm.round(private_trip, key, state, memory, roster)

    def personal(message: Message, memory: Private) -> Variables:
        return algorithm.personal(message._replace(state=memory.own), memory.inner)

    return algorithm._replace(memory=memory, round=round, personal=personal)
