"""What a task is, and what the tasks share."""

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
    """Data, a model and what is minimised: all that an algorithm needs besides its own settings.

    A task's factory takes keyword settings only, and equal settings give equal data.
    """

    name: str
    data: Federation
    model: Model | None
    """``None`` where the objective needs no model."""
    objective: Objective
    init: Callable[[Key], Variables]
    """``key -> variables``: the model that the server begins with."""


def classify(
    name: str,
    data: Federation,
    model: Model,
    ignore: int | None = None,
    statistics: Statistics = "average",
) -> Task:
    """A task that predicts integer labels with a model; ``ignore`` is a label that does not count, ``statistics`` the policy for
    batch statistics (see :func:`fedjax_sim.classification`)."""
    one = jax.tree.map(lambda leaf: leaf[:1], data.train.x)
    return Task(
        name,
        data,
        model,
        classification(model, statistics, ignore),
        lambda key: Variables(*model.init(key, one)),
    )


def classifier(model: str | Callable[[int], Model], classes: int) -> Model:
    """The zoo's model of that name, or what the caller makes, for so many classes (or, for a model of sequences, symbols)."""
    return (lookup("model", model, MODELS) if isinstance(model, str) else model)(classes)


def standardised(model: Model, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Model:
    """The model on inputs ``(x - mean) / deviation``, float32, both along the last axis: so data can stay in bytes on the device."""

    def scaled(x: Array) -> Array:
        return (x - jnp.asarray(mean)) / jnp.asarray(deviation)

    def init(key: Key, x: Array) -> tuple[PyTree, PyTree]:
        return model.init(key, scaled(x))

    def apply(params: PyTree, state: PyTree, x: Array, **more: Any) -> tuple[PyTree, PyTree]:
        return model.apply(params, state, scaled(x), **more)

    return Model(init, apply)


def dealt(
    rest: Examples,
    global_test: Examples,
    partition: Partition,
    *,
    clients: int | None,
    test_fraction: float,
    seed: int,
) -> Federation:
    """A federation from a labelled set that has no clients of its own."""
    parts = deal(partition, rest.y, clients, seed)
    return from_partition(
        rest.x, rest.y, parts, test_fraction=test_fraction, global_test=global_test, seed=seed
    )
