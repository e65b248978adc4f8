"""Wrappers ``Learner -> Learner`` that give a client something of its own."""

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
    """Memory or local state of a wrapped learner, beside what the wrapper adds."""

    inner: PyTree
    own: PyTree


def ditto(
    learner: Learner, objective: Objective, optimizer: optax.GradientTransformation
) -> Learner:
    """Trains a personal model beside the learner's, on the same batches (Li et al. 2021, Algorithm 1).

    Args:
      learner: what the server sees; it is left exactly as it is.
      objective: the personal model's objective.
      optimizer: the personal chain; ``proximal(lam)`` in it pulls towards the anchor.
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
    """Keeps each client's batch statistics at home (FedBN, Li et al. 2021): they never travel, and personal evaluation uses them."""

    def unpack(message: Message, memory: Private) -> Message:
        return message._replace(state=memory.own)

    def init(variables: Variables) -> Private:
        return Private(learner.init(variables), variables.state)

    def start(key: Key, message: Message, memory: Private) -> PyTree:
        return learner.start(key, unpack(message, memory), memory.inner)

    def step(
        key: Key, message: Message, memory: Private, local: PyTree, batch: Batch
    ) -> tuple[PyTree, Metrics]:
        return learner.step(key, unpack(message, memory), memory.inner, local, batch)

    def finish(
        key: Key, message: Message, memory: Private, local: PyTree
    ) -> tuple[Upload, Private, Metrics]:
        upload, inner, metrics = learner.finish(key, unpack(message, memory), memory.inner, local)
        kept = tree.sub(memory.own, upload.state)
        return upload._replace(state=tree.zeros_like(upload.state)), Private(inner, kept), metrics

    def personal(message: Message, memory: Private) -> Variables:
        return learner.personal(unpack(message, memory), memory.inner)

    return Learner(init, start, step, finish, personal)


def private_statistics(algorithm: Algorithm) -> Algorithm:
    """Any algorithm with :func:`private_state` around its learners, in every trip it makes.

    The global model keeps the statistics it was initialised with, so with batch normalisation look at personal evaluation.
    """

    def memory(variables: Variables) -> Private:
        return Private(algorithm.memory(variables), variables.state)

    def round(
        trip: Any, key: Key, state: PyTree, memory: Private, roster: Roster
    ) -> tuple[PyTree, Private, Outcome]:
        def private_trip(learner: Learner, *args: Any, **more: Any) -> Trip:
            return trip(private_state(learner), *args, **more)

        return algorithm.round(private_trip, key, state, memory, roster)

    def personal(message: Message, memory: Private) -> Variables:
        return algorithm.personal(message._replace(state=memory.own), memory.inner)

    return algorithm._replace(memory=memory, round=round, personal=personal)
