"""Optimizers and schedules by name, and corrections of the local gradient."""

import optax

from fedjax_sim.core import registry
from fedjax_sim.optimizers.named import (
    adagrad,
    adam,
    adamw,
    chain,
    clip,
    cosine,
    exponential,
    linear,
    lion,
    momentum,
    rmsprop,
    sgd,
    warmup,
    weight_decay,
    yogi,
)

registry.declare(
    registry.Kind(
        "schedule",
        "schedules",
        "a learning rate as a function of the step",
        stands_for=("schedule",),
        shorthand="number",
    )
)
for factory in (cosine, linear, exponential, warmup):
    registry.register("schedule", factory)

registry.declare(
    registry.Kind(
        "optimizer",
        "optimizers",
        "an optimizer, or a part of one; several in a list are chained",
        stands_for=(optax.GradientTransformation, optax.GradientTransformationExtraArgs),
        join=chain,
    )
)
for factory in (
    sgd,
    adam,
    adamw,
    yogi,
    adagrad,
    rmsprop,
    lion,
    clip,
    weight_decay,
    momentum,
):
    registry.register("optimizer", factory)

REGISTRY = registry.entries("optimizer")
"""Optimizers and their parts by the name that a configuration file uses."""

SCHEDULES = registry.entries("schedule")
"""Schedules by name."""

__all__ = [
    "REGISTRY",
    "SCHEDULES",
    "adagrad",
    "adam",
    "adamw",
    "chain",
    "clip",
    "cosine",
    "exponential",
    "linear",
    "lion",
    "momentum",
    "rmsprop",
    "sgd",
    "warmup",
    "weight_decay",
    "yogi",
]
