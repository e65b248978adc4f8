"""The server step that FedAdagrad, FedAdam and FedYogi share (Reddi et al. 2021, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_sim.core import tree
from fedjax_sim.core.errors import fraction, positive
from fedjax_sim.core.types import Array, PyTree

SecondMoment = Callable[[Array, Array], Array]
"""``(v, delta) -> v``, leaf by leaf."""


class Moments(NamedTuple):
    """State of :func:`adaptive`: moments of the pseudo-gradient, like the parameters.

    Attributes:
      m: first moment.
      v: second moment.
    """

    m: PyTree
    v: PyTree


def adaptive(
    second_moment: SecondMoment, server_lr: float, b1: float, tau: float
) -> optax.GradientTransformation:
    """The adaptive server step, without bias correction.

    ``m = b1 m + (1 - b1) delta``, ``v = second_moment(v, delta)``, ``x = x - lr m / (sqrt(v) +
    tau)``, with ``v = tau^2`` at the start. Here delta is ``x - y``, in the paper ``y - x``: the
    step has the opposite sign, the square does not.

    Args:
      second_moment: ``(v, delta) -> v``, leaf by leaf; this is where the algorithms differ.
      server_lr: the server's learning rate (eta), above 0.
      b1: decay of the first moment, in [0, 1].
      tau: degree of adaptivity, above 0.

    Raises:
      FedError: if a number lies outside its interval.

    Example:
      >>> import jax.numpy as jnp
      >>> from fedjax_sim.optimizers.adaptive import adaptive
      >>> optimizer = adaptive(lambda v, delta: v + delta**2, server_lr=1.0, b1=0.0, tau=1.0)
      >>> state = optimizer.init(jnp.zeros(1))
      >>> updates, state = optimizer.update(jnp.zeros(1), state)
      >>> updates.tolist(), state.v.tolist()
      ([-0.0], [1.0])
    """
    positive("server_lr", server_lr)
    positive("tau", tau)
    fraction("b1", b1, zero=True)

    def init(params: PyTree) -> Moments:
        return Moments(
            tree.zeros_like(params), jax.tree.map(lambda p: jnp.full_like(p, tau**2), params)
        )

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        m = jax.tree.map(lambda m, d: b1 * m + (1 - b1) * d, state.m, updates)
        v = jax.tree.map(second_moment, state.v, updates)
        step = jax.tree.map(lambda m, v: -server_lr * m / (jnp.sqrt(v) + tau), m, v)
        return step, Moments(m, v)

    return optax.GradientTransformation(init, update)
