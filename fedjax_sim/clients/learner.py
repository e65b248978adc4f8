"""Learners: the client's part as a step machine.

:func:`gradient_learner` and :func:`full_gradient` are enough for most algorithms; wrappers
``Learner -> Learner`` make the others.
"""

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
    """Local state of :func:`gradient_learner`.

    Attributes:
      variables: the client's model y.
      optimizer: state of the local optimizer.
      steps: int32 scalar, local steps taken in this round.
    """

    variables: Variables
    optimizer: PyTree
    steps: Array


class Gradient(NamedTuple):
    """The gradient of one batch, with the other results of the loss function.

    Attributes:
      params: the gradient, like the parameters.
      state: the model's new state.
      metrics: name to :class:`Mean`.
    """

    params: PyTree
    state: PyTree
    metrics: Metrics


def gradient(objective: Objective, variables: Variables, key: Key, batch: Batch) -> Gradient:
    """Returns the gradient of the mean loss over a batch, in training mode.

    Args:
      objective: the function to differentiate.
      variables: where the gradient is taken.
      key: the step's random key, such as for dropout.
      batch: ``[B, ...]``.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.clients.learner import gradient
      >>> def loss(variables, key, batch, train):
      ...     return (variables.params - 1.0) ** 2, (variables.state, {})
      >>> batch = fs.Batch(x=(), y=(), mask=jnp.ones(2, bool))
      >>> variables = fs.Variables(jnp.float32(4))
      >>> float(gradient(fs.Objective(loss), variables, jax.random.key(0), batch).params)
      6.0
    """

    def loss(params: PyTree) -> tuple[Array, tuple[PyTree, Metrics]]:
        return objective.loss(variables._replace(params=params), key, batch, True)

    params, (state, metrics) = jax.grad(loss, has_aux=True)(variables.params)
    return Gradient(params, state, metrics)


def broadcast_model(message: Message, memory: PyTree) -> Variables:
    """The ``personal`` slot of a learner that does not personalise: the model of the message."""
    return Variables(message.params, message.state)


def gradient_learner(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    context: Callable[[Message, PyTree], dict[str, Any]] = lambda message, memory: {},
) -> Learner:
    """Local optimization from the anchor; sends the pseudo-gradient ``x - y`` and keeps no memory.

    Args:
      objective: the function to minimise.
      optimizer: the local optimizer, such as one from
        :func:`fedjax_sim.optimizers.corrections.local_optimizer`; its state starts again in every
        round.
      context: ``(message, memory) -> extra arguments`` of the optimizer, besides ``anchor`` (the
        parameters of the message).

    Returns:
      A learner with memory ``()`` and local state :class:`Local`.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.clients.learner import gradient_learner
      >>> def loss(variables, key, batch, train):
      ...     return (variables.params - 1.0) ** 2, (variables.state, {})
      >>> learner = gradient_learner(fs.Objective(loss), optax.sgd(0.25))
      >>> message = fs.Message(jnp.float32(5))
      >>> batch = fs.Batch(x=(), y=(), mask=jnp.ones(2, bool))
      >>> key = jax.random.key(0)
      >>> local = learner.start(key, message, ())
      >>> local, metrics = learner.step(key, message, (), local, batch)
      >>> upload, memory, metrics = learner.finish(key, message, (), local)
      >>> float(local.variables.params), float(upload.delta)
      (3.0, 2.0)
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def start(key: Key, message: Message, memory: PyTree) -> Local:
        variables = Variables(message.params, message.state)
        return Local(variables, optimizer.init(message.params), jnp.zeros((), jnp.int32))

    def step(
        key: Key, message: Message, memory: PyTree, local: Local, batch: Batch
    ) -> tuple[Local, Metrics]:
        grad = gradient(objective, local.variables, key, batch)
        params = local.variables.params
        extra = {"anchor": message.params, **context(message, memory)}
        updates, state = optimizer.update(grad.params, local.optimizer, params, **extra)
        variables = Variables(optax.apply_updates(params, updates), grad.state)
        return Local(variables, state, local.steps + 1), grad.metrics

    def finish(
        key: Key, message: Message, memory: PyTree, local: Local
    ) -> tuple[Upload, PyTree, Metrics]:
        y = local.variables
        upload = Upload(tree.sub(message.params, y.params), tree.sub(message.state, y.state))
        return upload, memory, {}

    return Learner(lambda variables: (), start, step, finish, broadcast_model)


class GradientSum(NamedTuple):
    """A running sum of gradients, batches weighted by their unmasked examples.

    Attributes:
      total: the sum, float32, like the parameters.
      weight: float32 scalar, number of examples.
    """

    total: PyTree
    weight: Array


def empty_sum(params: PyTree) -> GradientSum:
    """Returns an empty sum: zeros.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.clients.learner import empty_sum
    >>> empty_sum(jnp.ones(2)).total.tolist()
    [0.0, 0.0]
    """
    return GradientSum(tree.widen(tree.zeros_like(params)), jnp.zeros((), jnp.float32))


def add_batch(running: GradientSum, grad: PyTree, batch: Batch) -> GradientSum:
    """Adds one batch's mean gradient, weighted by its number of examples.

    Args:
      running: the sum so far.
      grad: the mean gradient over the batch's unmasked examples, like the parameters.
      batch: ``[B, ...]``.
    """
    examples = jnp.sum(batch.mask, dtype=jnp.float32)
    return GradientSum(tree.axpy(examples, grad, running.total), running.weight + examples)


def average(running: GradientSum, like: PyTree) -> PyTree:
    """Returns the mean gradient over all examples of the sum; 0 for an empty sum.

    Args:
      running: the sum.
      like: pytree of the same structure whose dtypes the result takes.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.clients.learner import add_batch, average, empty_sum
      >>> params = jnp.zeros(1)
      >>> running = empty_sum(params)
      >>> for grad, examples in ((1.0, 3), (5.0, 1)):
      ...     batch = fs.Batch((), (), jnp.ones(examples, bool))
      ...     running = add_batch(running, jnp.array([grad]), batch)
      >>> average(running, like=params).tolist()
      [2.0]
    """
    return tree.cast(tree.scale(1 / jnp.maximum(running.weight, 1), running.total), like)


class GradientPass(NamedTuple):
    """Local state of :func:`full_gradient`.

    Attributes:
      gradients: the sum over the batches so far.
      state: the model's state after the batches so far.
    """

    gradients: GradientSum
    state: PyTree


def full_gradient(objective: Objective) -> Learner:
    """One pass over the client's examples at the anchor; sends ``grad f_i(x)`` as ``delta``.

    Run it for one epoch: each step adds one batch to the gradient.

    Args:
      objective: the function to differentiate.

    Returns:
      A learner with memory ``()`` and local state :class:`GradientPass`.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.clients.learner import full_gradient
      >>> def loss(variables, key, batch, train):
      ...     return (variables.params - 1.0) ** 2, (variables.state, {})
      >>> learner = full_gradient(fs.Objective(loss))
      >>> message = fs.Message(jnp.float32(5))
      >>> batch = fs.Batch(x=(), y=(), mask=jnp.ones(2, bool))
      >>> key = jax.random.key(0)
      >>> local = learner.start(key, message, ())
      >>> local, metrics = learner.step(key, message, (), local, batch)
      >>> upload, memory, metrics = learner.finish(key, message, (), local)
      >>> float(upload.delta)
      8.0
    """

    def start(key: Key, message: Message, memory: PyTree) -> GradientPass:
        return GradientPass(empty_sum(message.params), message.state)

    def step(
        key: Key, message: Message, memory: PyTree, local: GradientPass, batch: Batch
    ) -> tuple[GradientPass, Metrics]:
        grad = gradient(objective, Variables(message.params, local.state), key, batch)
        gradients = add_batch(local.gradients, grad.params, batch)
        return GradientPass(gradients, grad.state), grad.metrics

    def finish(
        key: Key, message: Message, memory: PyTree, local: GradientPass
    ) -> tuple[Upload, PyTree, Metrics]:
        delta = average(local.gradients, message.params)
        return Upload(delta, tree.sub(message.state, local.state)), memory, {}

    return Learner(lambda variables: (), start, step, finish, broadcast_model)
