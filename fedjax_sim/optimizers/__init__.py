"""Optimizers and schedules by name, and corrections of the local gradient."""

import optax

from fedjax_sim.core import registry
from fedjax_sim.core.calls import recorded
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
cosine = registry.register("schedule", cosine)
linear = registry.register("schedule", linear)
exponential = registry.register("schedule", exponential)
warmup = registry.register("schedule", warmup)

chain = recorded("optimizer", "", chain)
registry.declare(
    registry.Kind(
        "optimizer",
        "optimizers",
        "an optimizer, or a part of one; several in a list are chained",
        stands_for=(optax.GradientTransformation, optax.GradientTransformationExtraArgs),
        join=chain,
    )
)
sgd = registry.register("optimizer", sgd)
adam = registry.register("optimizer", adam)
adamw = registry.register("optimizer", adamw)
yogi = registry.register("optimizer", yogi)
adagrad = registry.register("optimizer", adagrad)
rmsprop = registry.register("optimizer", rmsprop)
lion = registry.register("optimizer", lion)
clip = registry.register("optimizer", clip)
weight_decay = registry.register("optimizer", weight_decay)
momentum = registry.register("optimizer", momentum)

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
