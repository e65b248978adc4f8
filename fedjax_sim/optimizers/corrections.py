"""Corrections of the local gradient, as optax transforms with extra arguments.

The learner passes two extra arguments to every transform of the local optimizer: ``anchor``, the
parameters that the client received, and ``drift``, a pytree like the parameters, if the algorithm
has one. All transforms of optax compose with these.
"""

from __future__ import annotations

from typing import Any

import jax
import optax

from fedjax_sim.core import tree
from fedjax_sim.core.types import PyTree

Optimizer = optax.GradientTransformation


def proximal(mu: float) -> optax.GradientTransformationExtraArgs:
    """Adds ``mu (y - x)``, the gradient of FedProx's ``mu/2 |y - x|^2``.

    Reference: Li et al. 2020, equation 2.

    Args:
      mu: weight of the proximal term, from 0 on.

    Example:
      >>> import jax.numpy as jnp
      >>> from fedjax_sim.optimizers.corrections import proximal
      >>> optimizer = proximal(mu=0.5)
      >>> state = optimizer.init(jnp.zeros(1))
      >>> grad, y, x = jnp.array([1.0]), jnp.array([4.0]), jnp.array([2.0])
      >>> updates, state = optimizer.update(grad, state, y, anchor=x)
      >>> updates.tolist()
      [2.0]
    """

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        return jax.tree.map(
            lambda g, y, x: g + mu * (y - x), updates, params, extra["anchor"]
        ), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def drift() -> optax.GradientTransformationExtraArgs:
    """Adds the algorithm's drift correction, such as SCAFFOLD's ``c - c_i``.

    Example:
      >>> import jax.numpy as jnp
      >>> from fedjax_sim.optimizers.corrections import drift
      >>> optimizer = drift()
      >>> state = optimizer.init(jnp.zeros(1))
      >>> updates, state = optimizer.update(jnp.array([1.0]), state, drift=jnp.array([0.5]))
      >>> updates.tolist()
      [1.5]
    """

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        return tree.add(updates, extra["drift"]), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def local_optimizer(
    lr: float | optax.Schedule, *transforms: Optimizer | None
) -> optax.GradientTransformationExtraArgs:
    """Chains transforms of the local gradient with a step of ``-lr``.

    Args:
      lr: local learning rate, or a schedule over the local steps of one round.
      *transforms: optax transforms, in order; None is skipped.

    Example:
      >>> import jax.numpy as jnp
      >>> from fedjax_sim.optimizers.corrections import drift, local_optimizer
      >>> optimizer = local_optimizer(0.5, drift())
      >>> state = optimizer.init(jnp.zeros(1))
      >>> updates, state = optimizer.update(jnp.array([1.0]), state, drift=jnp.array([3.0]))
      >>> updates.tolist()
      [-2.0]
    """
    stages = [stage for stage in transforms if stage is not None]
    return optax.with_extra_args_support(optax.chain(*stages, optax.scale_by_learning_rate(lr)))
