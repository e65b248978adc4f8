"""Corrections of the local gradient, as optax transforms that read what the learner passes along.

The learner hands every transform of its chain two extra arguments: ``anchor`` (the parameters the client received) and ``drift``
(a pytree like the parameters, where the algorithm has one). Anything of optax composes with these.
"""

from __future__ import annotations

from typing import Any

import jax
import optax

from fedjax_sim.core import tree
from fedjax_sim.core.types import PyTree

Optimizer = optax.GradientTransformation


def proximal(mu: float) -> optax.GradientTransformationExtraArgs:
    """Adds ``mu (y - x)``: the gradient of FedProx's ``mu/2 |y - x|^2`` (Li et al. 2020, equation 2)."""

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        return jax.tree.map(
            lambda g, y, x: g + mu * (y - x), updates, params, extra["anchor"]
        ), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def drift() -> optax.GradientTransformationExtraArgs:
    """Adds the algorithm's drift correction, for example SCAFFOLD's ``c - c_i``."""

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        return tree.add(updates, extra["drift"]), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def local_optimizer(
    lr: float | optax.Schedule, *transforms: Optimizer | None
) -> optax.GradientTransformationExtraArgs:
    """The local chain: the transforms in order, then a step of ``-lr``. Schedules count local steps within the round."""
    stages = [stage for stage in transforms if stage is not None]
    return optax.with_extra_args_support(optax.chain(*stages, optax.scale_by_learning_rate(lr)))
