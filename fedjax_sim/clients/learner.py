"""Learners: the client's part as a step machine. Two are enough for most algorithms, wrappers make the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_sim.core import tree
from fedjax_sim.core.types import (
    Array,
    Batch,
    Key,
    Learner,
    Message,
    Metrics,
    Objective,
    PyTree,
    Upload,
    Variables,
)


class Local(NamedTuple):
    """Local state of :func:`gradient_learner`: the client's model, its optimizer, and the steps taken so far (int32)."""

    variables: Variables
    optimizer: PyTree
    steps: Array


class Gradient(NamedTuple):
    """A gradient, and what came with it."""

    params: PyTree
    state: PyTree
    metrics: Metrics


def gradient(objective: Objective, variables: Variables, key: Key, batch: Batch) -> Gradient:
    """Gradient of the mean loss over a batch, in training mode."""

    def loss(params: PyTree) -> tuple[Array, tuple[PyTree, Metrics]]:
        return objective.loss(variables._replace(params=params), key, batch, True)

    params, (state, metrics) = jax.grad(loss, has_aux=True)(variables.params)
    return Gradient(params, state, metrics)


def broadcast_model(message: Message, memory: PyTree) -> Variables:
    """The ``personal`` slot of a learner that does not personalise."""
    return Variables(message.params, message.state)


def gradient_learner(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    context: Callable[[Message, PyTree], dict[str, Any]] = lambda message, memory: {},
) -> Learner:
    """Local descent from the anchor; sends the pseudo-gradient ``x - y``, remembers nothing.

    Args:
      objective: what is minimised.
      optimizer: the local chain, from :func:`fedjax_sim.optimizers.corrections.local_optimizer`; it starts afresh in every round.
      context: ``(message, memory) -> extra arguments`` for the chain, besides ``anchor``.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def start(key: Key, message: Message, memory: PyTree) -> Local:
        return Local(
            Variables(message.params, message.state),
            optimizer.init(message.params),
            jnp.zeros((), jnp.int32),
        )

    def step(
        key: Key, message: Message, memory: PyTree, local: Local, batch: Batch
    ) -> tuple[Local, Metrics]:
        grad = gradient(objective, local.variables, key, batch)
        params = local.variables.params
        extra = {"anchor": message.params, **context(message, memory)}
        updates, state = optimizer.update(grad.params, local.optimizer, params, **extra)
        return Local(
            Variables(optax.apply_updates(params, updates), grad.state), state, local.steps + 1
        ), grad.metrics

    def finish(
        key: Key, message: Message, memory: PyTree, local: Local
    ) -> tuple[Upload, PyTree, Metrics]:
        y = local.variables
        return (
            Upload(tree.sub(message.params, y.params), tree.sub(message.state, y.state)),
            memory,
            {},
        )

    return Learner(lambda variables: (), start, step, finish, broadcast_model)


class Sum(NamedTuple):
    """A running sum of gradients, in float32, batches weighted by their unmasked examples."""

    total: PyTree
    weight: Array


def empty_sum(params: PyTree) -> Sum:
    """Nothing summed yet."""
    return Sum(tree.widen(tree.zeros_like(params)), jnp.zeros((), jnp.float32))


def add_batch(running: Sum, grad: PyTree, batch: Batch) -> Sum:
    """The sum with one batch's mean gradient added, weighted by its examples."""
    examples = jnp.sum(batch.mask, dtype=jnp.float32)
    return Sum(tree.axpy(examples, grad, running.total), running.weight + examples)


def average(running: Sum, like: PyTree) -> PyTree:
    """The mean gradient over all examples seen, in the dtypes of ``like``."""
    return tree.cast(tree.scale(1 / jnp.maximum(running.weight, 1), running.total), like)


class Pass(NamedTuple):
    """Local state of :func:`full_gradient`: gradients so far, and the model's state as it moves along."""

    gradients: Sum
    state: PyTree


def full_gradient(objective: Objective) -> Learner:
    """One pass over the client's data at the anchor; sends ``grad f_i(x)`` as its pseudo-gradient. Run it for one epoch."""

    def start(key: Key, message: Message, memory: PyTree) -> Pass:
        return Pass(empty_sum(message.params), message.state)

    def step(
        key: Key, message: Message, memory: PyTree, local: Pass, batch: Batch
    ) -> tuple[Pass, Metrics]:
        grad = gradient(objective, Variables(message.params, local.state), key, batch)
        return Pass(add_batch(local.gradients, grad.params, batch), grad.state), grad.metrics

    def finish(
        key: Key, message: Message, memory: PyTree, local: Pass
    ) -> tuple[Upload, PyTree, Metrics]:
        return (
            Upload(average(local.gradients, message.params), tree.sub(message.state, local.state)),
            memory,
            {},
        )

    return Learner(lambda variables: (), start, step, finish, broadcast_model)
