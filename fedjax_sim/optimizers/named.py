"""Optimizers and learning-rate schedules by name, with keywords that a configuration file can say.

Each factory returns an ``optax.GradientTransformation``; several chained make one (``chain``). The same list serves a server,
where a step is a round and the gradient is the pseudo-gradient, and a client, where a step is a local step.
"""

from __future__ import annotations

from typing import Any

import optax

from fedjax_sim.core.errors import fraction, positive, require

Optimizer = optax.GradientTransformation
Rate = float | optax.Schedule
"""A learning rate: a number, or a function of the step."""


def _decay(name: str, value: Any) -> None:
    bad = isinstance(value, int | float) and not 0 <= value < 1
    require(
        not bad,
        f"{name} is a decay and must lie in [0, 1)",
        got=value,
        fix=f"give {name} a value such as 0.9",
    )


def _rate(name: str, value: Any) -> None:
    bad = isinstance(value, int | float) and not value >= 0
    require(
        not bad, f"{name} must not be negative", got=value, fix=f"give {name} 0 or a value above it"
    )


# ------------------------------------------------------------------------------------------------------------- optimizers


def sgd(lr: Rate = 1.0, momentum: float = 0.0, nesterov: bool = False) -> Optimizer:
    """Gradient descent, with heavy-ball or Nesterov momentum where ``momentum > 0``.

    Args:
      lr: learning rate; on a server, 1 replaces the model by the clients' average.
      momentum: decay of the velocity, in [0, 1).
      nesterov: look ahead along the velocity.
    """
    positive("lr", lr)
    _decay("momentum", momentum)
    require(
        not nesterov or momentum > 0,
        "nesterov needs momentum",
        got=momentum,
        fix="give momentum a value such as 0.9",
    )
    return optax.sgd(lr, momentum=momentum or None, nesterov=nesterov)


def adam(lr: Rate = 0.001, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """Adam with bias correction (Kingma and Ba, 2015)."""
    _adaptive(lr, b1, b2, eps)
    return optax.adam(lr, b1=b1, b2=b2, eps=eps)


def adamw(
    lr: Rate = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""
    _adaptive(lr, b1, b2, eps)
    _rate("weight_decay", weight_decay)
    return optax.adamw(lr, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)


def yogi(lr: Rate = 0.01, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3) -> Optimizer:
    """Yogi: Adam whose second moment grows only additively (Zaheer et al., 2018)."""
    _adaptive(lr, b1, b2, eps)
    return optax.yogi(lr, b1=b1, b2=b2, eps=eps)


def adagrad(lr: Rate = 0.01, initial: float = 0.1, eps: float = 1e-7) -> Optimizer:
    """Adagrad: the sum of squares starts at ``initial`` (Duchi et al., 2011)."""
    positive("lr", lr)
    _rate("initial", initial)
    positive("eps", eps)
    return optax.adagrad(lr, initial_accumulator_value=initial, eps=eps)


def rmsprop(
    lr: Rate = 0.01, decay: float = 0.9, eps: float = 1e-8, momentum: float = 0.0
) -> Optimizer:
    """RMSProp: the gradient over a running root mean square (Tieleman and Hinton, 2012)."""
    positive("lr", lr)
    _decay("decay", decay)
    positive("eps", eps)
    _decay("momentum", momentum)
    return optax.rmsprop(lr, decay=decay, eps=eps, momentum=momentum or None)


def lion(
    lr: Rate = 1e-4, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 0.0
) -> Optimizer:
    """Lion: the sign of an interpolated momentum (Chen et al., 2023)."""
    positive("lr", lr)
    _decay("b1", b1)
    _decay("b2", b2)
    _rate("weight_decay", weight_decay)
    return optax.lion(lr, b1=b1, b2=b2, weight_decay=weight_decay)


def _adaptive(lr: Any, b1: Any, b2: Any, eps: Any) -> None:
    positive("lr", lr)
    _decay("b1", b1)
    _decay("b2", b2)
    positive("eps", eps)


# ---------------------------------------------------------------------------------------- parts of a chain, without a rate


def clip(max_norm: float = 1.0) -> Optimizer:
    """Scales the gradient down to a Euclidean norm of at most ``max_norm``."""
    positive("max_norm", max_norm)
    return optax.clip_by_global_norm(max_norm)


def weight_decay(rate: float = 1e-4) -> Optimizer:
    """Adds ``rate`` times the parameters to the gradient."""
    _rate("rate", rate)
    return optax.add_decayed_weights(rate)


def momentum(decay: float = 0.9, nesterov: bool = False) -> Optimizer:
    """Replaces the gradient by a velocity, ``v = decay * v + g``; to stand before an optimizer that has none."""
    _decay("decay", decay)
    return optax.trace(decay, nesterov=nesterov)


def chain(*parts: Optimizer) -> Optimizer:
    """The parts one after another, as one optimizer."""
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


# -------------------------------------------------------------------------------------------------------------- schedules


def cosine(start: float, steps: int, end: float = 0.0) -> optax.Schedule:
    """From ``start`` along half a cosine to ``end`` in ``steps`` steps, and ``end`` from then on."""
    positive("start", start)
    positive("steps", steps)
    _rate("end", end)
    return optax.cosine_decay_schedule(start, steps, alpha=end / start)


def linear(start: float, steps: int, end: float = 0.0) -> optax.Schedule:
    """From ``start`` in a straight line to ``end`` in ``steps`` steps, and ``end`` from then on."""
    _rate("start", start)
    positive("steps", steps)
    _rate("end", end)
    return optax.linear_schedule(start, end, steps)


def exponential(
    start: float, steps: int, factor: float = 0.5, staircase: bool = False
) -> optax.Schedule:
    """``start`` times ``factor`` for every ``steps`` steps; smoothly, or at once where ``staircase``."""
    positive("start", start)
    positive("steps", steps)
    fraction("factor", factor)
    return optax.exponential_decay(start, steps, factor, staircase=staircase)


def warmup(peak: float, warmup_steps: int, steps: int, end: float = 0.0) -> optax.Schedule:
    """From 0 to ``peak`` in ``warmup_steps`` steps, then along a cosine to ``end`` at step ``steps``."""
    positive("peak", peak)
    positive("warmup_steps", warmup_steps)
    _rate("end", end)
    require(
        steps > warmup_steps,
        "steps counts the warm-up too",
        got=(steps, warmup_steps),
        fix="give steps a value above warmup_steps",
    )
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, steps, end)
