"""The definition of a task, and functions that several tasks use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_sim.core.errors import lookup
from fedjax_sim.core.types import Array, Key, Objective, PyTree, Variables
from fedjax_sim.data.federation import Federation, from_partition
from fedjax_sim.data.partition.apply import Partition, deal
from fedjax_sim.data.population import Examples
from fedjax_sim.models import REGISTRY as MODELS
from fedjax_sim.models import Model
from fedjax_sim.models.objectives import Statistics, classification


class Task(NamedTuple):
    """Data, a model and an objective: everything that an algorithm needs besides its own settings.

    The factory of a task takes keyword settings only, and equal settings give equal data.
    """

    name: str
    data: Federation
    model: Model | None
    """``None`` if the objective needs no model."""
    objective: Objective
    init: Callable[[Key], Variables]
    """``key -> variables``: the server's model before the first round."""


def classify(
    name: str,
    data: Federation,
    model: Model,
    ignore: int | None = None,
    statistics: Statistics = "average",
) -> Task:
    """Returns a task that predicts integer labels with a model.

    Args:
      name: the task's name.
      data: a federation whose labels are ``[n]``, or ``[n, T]`` for sequences.
      model: returns logits ``[B, K]``, or ``[B, T, K]``, for ``data.train.x``.
      ignore: label that is excluded from loss and accuracy, see :func:`fedjax_sim.classification`.
      statistics: policy for batch statistics, see :func:`fedjax_sim.classification`.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import numpy as np
      >>> x = np.zeros((6, 4), np.float32)
      >>> y = np.array([0, 1, 0, 1, 0, 1], np.int32)
      >>> data = fs.data.federation(fs.population(x, y, np.array([0, 2, 6])))
      >>> task = fs.tasks.classify("mine", data, fs.models.logistic(classes=2))
      >>> task.init(jax.random.key(0)).params["head"]["kernel"].shape
      (4, 2)
    """
    first_example = jax.tree.map(lambda leaf: leaf[:1], data.train.x)
    return Task(
        name,
        data,
        model,
        classification(model, statistics, ignore),
        lambda key: Variables(*model.init(key, first_example)),
    )


def classifier(model: str | Callable[[int], Model], classes: int) -> Model:
    """Returns a model for a number of classes.

    Args:
      model: name of a registered model, or a function ``classes -> model``.
      classes: number of logits; for a model of sequences, the size of the vocabulary.
    """
    return (lookup("model", model, MODELS) if isinstance(model, str) else model)(classes)


def standardised(model: Model, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Model:
    """Returns the model applied to float32 inputs ``(x - mean) / deviation``.

    With it a data set can stay in bytes on the device.

    Args:
      model: takes float32 inputs ``[B, ..., C]``.
      mean: C numbers, subtracted along the last axis.
      deviation: C numbers, the divisors along the last axis.
    """

    def scaled(x: Array) -> Array:
        return (x - jnp.asarray(mean)) / jnp.asarray(deviation)

    def init(key: Key, x: Array) -> tuple[PyTree, PyTree]:
        return model.init(key, scaled(x))

    def apply(params: PyTree, state: PyTree, x: Array, **options: Any) -> tuple[PyTree, PyTree]:
        return model.apply(params, state, scaled(x), **options)

    return Model(init, apply)


def partitioned(
    examples: Examples,
    global_test: Examples,
    partition: Partition,
    *,
    clients: int | None,
    test_fraction: float,
    seed: int,
) -> Federation:
    """Returns a federation of labelled examples that have no owners.

    Args:
      examples: training examples, leaves ``[n, ...]``.
      global_test: the global test set, leaves ``[m, ...]``.
      partition: assigns the examples to clients.
      clients: number of clients, N.
      test_fraction: share of each client's examples for its own test set.
      seed: seed of the partition and of the split.
    """
    parts = deal(partition, examples.y, clients, seed)
    return from_partition(
        examples.x,
        examples.y,
        parts,
        test_fraction=test_fraction,
        global_test=global_test,
        seed=seed,
    )
