"""Optimizers and learning-rate schedules, with the parameters that a configuration file can set.

Each optimizer factory returns an ``optax.GradientTransformation``, and ``chain`` makes one of
several. The same factories serve a server, where a step is a round and the gradient is the
pseudo-gradient, and a client, where a step is a local step.
"""

from __future__ import annotations

from typing import Any

import optax

from fedjax_sim.core.errors import fraction, positive, require

Optimizer = optax.GradientTransformation
Rate = float | optax.Schedule
"""A learning rate: a number, or a function of the step."""


def _decay(name: str, value: Any) -> None:
    """Requires ``0 <= value < 1``; traced values pass."""
    bad = isinstance(value, int | float) and not 0 <= value < 1
    require(
        not bad,
        f"{name} is a decay and must lie in [0, 1)",
        got=value,
        fix=f"give {name} a value such as 0.9",
        setting=name,
    )


def _not_negative(name: str, value: Any) -> None:
    """Requires ``value >= 0``, infinity included; traced values pass."""
    bad = isinstance(value, int | float) and not value >= 0
    require(
        not bad,
        f"{name} must not be negative",
        got=value,
        fix=f"give {name} 0 or a value above it",
        setting=name,
    )


# --------------------------------------------------------------------------------------- optimizers


def sgd(lr: Rate = 1.0, momentum: float = 0.0, nesterov: bool = False) -> Optimizer:
    """Gradient descent, with heavy-ball or Nesterov momentum if ``momentum > 0``.

    Args:
      lr: learning rate; on a server, 1 replaces the model by the clients' average.
      momentum: decay of the velocity, in [0, 1).
      nesterov: whether to use Nesterov momentum.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> optimizer = fs.optimizers.sgd(lr=0.5)
      >>> updates, state = optimizer.update(jnp.array([2.0]), optimizer.init(jnp.zeros(1)))
      >>> updates.tolist()
      [-1.0]
    """
    positive("lr", lr)
    _decay("momentum", momentum)
    require(
        not nesterov or momentum > 0,
        "nesterov needs momentum",
        got=momentum,
        fix="give momentum a value such as 0.9",
        setting="nesterov",
    )
    return optax.sgd(lr, momentum=momentum or None, nesterov=nesterov)


def adam(lr: Rate = 0.001, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """Adam with bias correction (Kingma and Ba, 2015).

    Args:
      lr: learning rate.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment, above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> state = fs.optimizers.adam().init(jnp.zeros(2))
      >>> type(state[0]).__name__
      'ScaleByAdamState'
    """
    _adaptive(lr, b1, b2, eps)
    return optax.adam(lr, b1=b1, b2=b2, eps=eps)


def adamw(
    lr: Rate = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    Args:
      lr: learning rate.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment, above 0.
      weight_decay: share of the parameters, times ``lr``, that each step subtracts; from 0 on.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> state = fs.optimizers.adamw().init(jnp.zeros(2))
      >>> type(state[0]).__name__
      'ScaleByAdamState'
    """
    _adaptive(lr, b1, b2, eps)
    _not_negative("weight_decay", weight_decay)
    return optax.adamw(lr, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)


def yogi(lr: Rate = 0.01, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3) -> Optimizer:
    """Yogi: Adam with an additive update of the second moment (Zaheer et al., 2018).

    Args:
      lr: learning rate.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment, above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> state = fs.optimizers.yogi().init(jnp.zeros(2))
      >>> type(state[0]).__name__
      'ScaleByAdamState'
    """
    _adaptive(lr, b1, b2, eps)
    return optax.yogi(lr, b1=b1, b2=b2, eps=eps)


def adagrad(lr: Rate = 0.01, initial: float = 0.1, eps: float = 1e-7) -> Optimizer:
    """Adagrad: the gradient over the root of the sum of squared gradients (Duchi et al., 2011).

    Args:
      lr: learning rate.
      initial: the sum of squares at the start, from 0 on.
      eps: added to the root of the sum, above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> state = fs.optimizers.adagrad(initial=0.25).init(jnp.zeros(2))
      >>> state[0].sum_of_squares.tolist()
      [0.25, 0.25]
    """
    positive("lr", lr)
    _not_negative("initial", initial)
    positive("eps", eps)
    return optax.adagrad(lr, initial_accumulator_value=initial, eps=eps)


def rmsprop(
    lr: Rate = 0.01, decay: float = 0.9, eps: float = 1e-8, momentum: float = 0.0
) -> Optimizer:
    """RMSProp: the gradient over a running root mean square (Tieleman and Hinton, 2012).

    Args:
      lr: learning rate.
      decay: decay of the mean square, in [0, 1).
      eps: added to the mean square, above 0.
      momentum: decay of the velocity, in [0, 1); 0 for none.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> state = fs.optimizers.rmsprop().init(jnp.zeros(2))
      >>> state[0].nu.tolist()
      [0.0, 0.0]
    """
    positive("lr", lr)
    _decay("decay", decay)
    positive("eps", eps)
    _decay("momentum", momentum)
    return optax.rmsprop(lr, decay=decay, eps=eps, momentum=momentum or None)


def lion(
    lr: Rate = 1e-4, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 0.0
) -> Optimizer:
    """Lion: the sign of an interpolation of momentum and gradient (Chen et al., 2023).

    Args:
      lr: learning rate.
      b1: share of the momentum in the interpolation, in [0, 1).
      b2: decay of the momentum, in [0, 1).
      weight_decay: share of the parameters, times ``lr``, that each step subtracts; from 0 on.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> state = fs.optimizers.lion().init(jnp.zeros(2))
      >>> type(state[0]).__name__
      'ScaleByLionState'
    """
    positive("lr", lr)
    _decay("b1", b1)
    _decay("b2", b2)
    _not_negative("weight_decay", weight_decay)
    return optax.lion(lr, b1=b1, b2=b2, weight_decay=weight_decay)


def _adaptive(lr: Any, b1: Any, b2: Any, eps: Any) -> None:
    """Checks the settings that the variants of Adam share."""
    positive("lr", lr)
    _decay("b1", b1)
    _decay("b2", b2)
    positive("eps", eps)


# ---------------------------------------------------------------- parts of a chain, without a rate


def clip(max_norm: float = 1.0) -> Optimizer:
    """Scales the gradient down to a Euclidean norm of at most ``max_norm``.

    Args:
      max_norm: largest norm over all leaves, above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> clip = fs.optimizers.clip(max_norm=1.0)
      >>> updates, state = clip.update(jnp.array([0.0, 4.0]), clip.init(jnp.zeros(2)))
      >>> updates.tolist()
      [0.0, 1.0]
    """
    positive("max_norm", max_norm)
    return optax.clip_by_global_norm(max_norm)


def weight_decay(rate: float = 1e-4) -> Optimizer:
    """Adds ``rate`` times the parameters to the gradient.

    Args:
      rate: from 0 on.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> decay = fs.optimizers.weight_decay(rate=0.5)
      >>> params = jnp.array([4.0])
      >>> updates, state = decay.update(jnp.array([1.0]), decay.init(params), params)
      >>> updates.tolist()
      [3.0]
    """
    _not_negative("rate", rate)
    return optax.add_decayed_weights(rate)


def momentum(decay: float = 0.9, nesterov: bool = False) -> Optimizer:
    """Replaces the gradient by a velocity, ``v = decay * v + g``.

    Chain it before an optimizer that has no momentum.

    Args:
      decay: decay of the velocity, in [0, 1).
      nesterov: whether to use Nesterov momentum.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> momentum = fs.optimizers.momentum(decay=0.5)
      >>> state = momentum.init(jnp.zeros(1))
      >>> for _ in range(2):
      ...     updates, state = momentum.update(jnp.array([1.0]), state)
      >>> updates.tolist()
      [1.5]
    """
    _decay("decay", decay)
    return optax.trace(decay, nesterov=nesterov)


def chain(*parts: Optimizer) -> Optimizer:
    """Applies optimizers, or parts of one, in order.

    Args:
      *parts: at least one; each receives the updates of the one before it.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> optimizer = fs.optimizers.chain(
      ...     fs.optimizers.weight_decay(rate=0.5), fs.optimizers.sgd(lr=0.5)
      ... )
      >>> params = jnp.array([4.0])
      >>> updates, state = optimizer.update(jnp.array([1.0]), optimizer.init(params), params)
      >>> updates.tolist()
      [-1.5]
    """
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


# ---------------------------------------------------------------------------------------- schedules


def cosine(start: float, steps: int, end: float = 0.0) -> optax.Schedule:
    """From ``start`` along half a cosine to ``end``.

    Args:
      start: learning rate at step 0, above 0.
      steps: number of steps until ``end``; the rate is constant after them.
      end: learning rate at the end, from 0 on.

    Example:
      >>> import fedjax_sim as fs
      >>> rate = fs.optimizers.cosine(start=1.0, steps=10)
      >>> [round(float(rate(t)), 3) for t in (0, 5, 10, 20)]
      [1.0, 0.5, 0.0, 0.0]
    """
    positive("start", start)
    positive("steps", steps)
    _not_negative("end", end)
    return optax.cosine_decay_schedule(start, steps, alpha=end / start)


def linear(start: float, steps: int, end: float = 0.0) -> optax.Schedule:
    """From ``start`` in a straight line to ``end``.

    Args:
      start: learning rate at step 0, from 0 on.
      steps: number of steps until ``end``; the rate is constant after them.
      end: learning rate at the end, from 0 on.

    Example:
      >>> import fedjax_sim as fs
      >>> rate = fs.optimizers.linear(start=1.0, steps=10)
      >>> [round(float(rate(t)), 3) for t in (0, 5, 10, 20)]
      [1.0, 0.5, 0.0, 0.0]
    """
    _not_negative("start", start)
    positive("steps", steps)
    _not_negative("end", end)
    return optax.linear_schedule(start, end, steps)


def exponential(
    start: float, steps: int, factor: float = 0.5, staircase: bool = False
) -> optax.Schedule:
    """``start`` times ``factor`` for every ``steps`` steps.

    Args:
      start: learning rate at step 0, above 0.
      steps: number of steps after which the rate is multiplied by ``factor``.
      factor: in (0, 1].
      staircase: whether the rate changes only every ``steps`` steps, instead of at each step.

    Example:
      >>> import fedjax_sim as fs
      >>> rate = fs.optimizers.exponential(start=1.0, steps=10, staircase=True)
      >>> [float(rate(t)) for t in (0, 9, 10, 20)]
      [1.0, 1.0, 0.5, 0.25]
    """
    positive("start", start)
    positive("steps", steps)
    fraction("factor", factor)
    return optax.exponential_decay(start, steps, factor, staircase=staircase)


def warmup(peak: float, warmup_steps: int, steps: int, end: float = 0.0) -> optax.Schedule:
    """From 0 in a straight line to ``peak``, then along half a cosine to ``end``.

    Args:
      peak: largest learning rate, above 0.
      warmup_steps: number of steps until ``peak``.
      steps: number of steps until ``end``, those of the warm-up included.
      end: learning rate at the end, from 0 on.

    Example:
      >>> import fedjax_sim as fs
      >>> rate = fs.optimizers.warmup(peak=1.0, warmup_steps=10, steps=20)
      >>> [round(float(rate(t)), 3) for t in (0, 5, 10, 15, 20)]
      [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    positive("peak", peak)
    positive("warmup_steps", warmup_steps)
    _not_negative("end", end)
    require(
        steps > warmup_steps,
        "steps includes the warm-up and must exceed warmup_steps",
        got=(steps, warmup_steps),
        fix="give steps a value above warmup_steps",
        setting="steps",
    )
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, steps, end)
