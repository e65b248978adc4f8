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

Second = Callable[[Array, Array], Array]


class Moments(NamedTuple):
    """First and second moment of the pseudo-gradient, like the parameters."""

    m: PyTree
    v: PyTree


def adaptive(
    second: Second, server_lr: float, b1: float, tau: float
) -> optax.GradientTransformation:
    """``m = b1 m + (1 - b1) delta``, ``v = second(v, delta)``, ``x = x - lr m / (sqrt(v) + tau)``; no bias correction, ``v_{-1} = tau^2``.

    Our delta is ``x - y``, the paper's ``y - x``: the sign of the step changes with it, the square does not.
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
        v = jax.tree.map(second, state.v, updates)
        return jax.tree.map(lambda m, v: -server_lr * m / (jnp.sqrt(v) + tau), m, v), Moments(m, v)

    return optax.GradientTransformation(init, update)
