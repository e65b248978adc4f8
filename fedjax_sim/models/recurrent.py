"""A recurrent layer for models of sequences, time first: ``[T, B, ...]``, so that a step's rows lie together."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from fedjax_sim.core.errors import positive, require
from fedjax_sim.core.types import Array, Key


class LSTM(nn.Module):
    """A long short-term memory layer with forget gates: ``[T, B, D] -> [T, B, H]``, a flax.linen module.

    The inputs' share of the gates is one product over all ``T B`` rows, outside the loop over time; the rest is :func:`lstm`. So
    every weight's gradient is one product, too.

    | parameter | shape | starts |
    |---|---|---|
    | ``input/kernel`` | ``[D, 4H]`` | LeCun normal |
    | ``input/bias`` | ``[4H]`` | 1 for the forget gates, which so start open, 0 for the others |
    | ``recurrent`` | ``[H, 4H]`` | orthogonal |

    The 4H columns are the gates in, forget, new, out. Hidden and cell state start at zero with every call.

    Args:
      width: H.

    Raises:
      FedError: the width is not positive, or the input has not three axes.

    Reference: see :func:`lstm`.
    """

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The hidden states."""
        positive("width", self.width)
        require(
            x.ndim == 3,
            "an LSTM takes [T, B, D]",
            got=list(x.shape),
            fix="bring time to the front and the features into one axis",
        )
        drive = nn.Dense(4 * self.width, bias_init=_forget_open, name="input")(x)
        kernel = self.param(
            "recurrent", nn.initializers.orthogonal(), (self.width, 4 * self.width), jnp.float32
        )
        return lstm(drive, kernel.astype(drive.dtype))


def lstm(drive: Array, recurrent: Array) -> Array:
    """The hidden states of an LSTM from its inputs' share of the gates and its recurrent kernel.

    With ``i, f, g, o`` the four quarters of ``drive_t + h_{t-1} recurrent``, and ``h_0 = c_0 = 0``::

        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    Differentiated by hand for speed; values and gradients are those of the plain scan. The loop backward in time only finds the
    gradients of the gates, from gates kept as they were after their nonlinearity. The gradient of ``recurrent`` is one product over
    all ``T B`` rows after it, where automatic differentiation adds up ``T`` small ones, each reading and writing the whole kernel.

    Reverse mode alone: ``jax.grad`` and ``jax.vjp``, repeated at will, and ``jax.jvp`` of a gradient; ``jax.jvp`` of the layer itself
    is an error in JAX. Where that is needed, ``flax.linen.RNN`` around an ``OptimizedLSTMCell`` is the plain scan.

    Args:
      drive: ``[T, B, 4H]``, T at least 1: inputs times input kernel, plus bias. Columns are the gates in, forget, new, out.
      recurrent: ``[H, 4H]``, of the same dtype, in which everything is computed.

    Returns:
      ``[T, B, H]``, the states ``h_1 ... h_T``.

    Raises:
      FedError: shapes or dtypes do not fit each other.

    Reference: Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 1997; Gers, Schmidhuber and Cummins,
    "Learning to Forget: Continual Prediction with LSTM", Neural Computation 2000 (the forget gate).
    """
    width = recurrent.shape[0]
    fits = (
        drive.ndim == 3
        and drive.shape[0] > 0
        and recurrent.shape == (width, 4 * width)
        and drive.shape[2] == 4 * width
    )
    got = f"{drive.dtype}{list(drive.shape)} and {recurrent.dtype}{list(recurrent.shape)}"
    require(
        fits,
        "an LSTM takes gates [T, B, 4H] and a recurrent kernel [H, 4H]",
        got=got,
        fix="put the four gates side by side, time first",
    )
    require(
        drive.dtype == recurrent.dtype,
        "gates and recurrent kernel must be of one dtype",
        got=got,
        fix="cast one of them",
    )
    return _recur(drive, recurrent)


class _Gates(NamedTuple):
    """The gates of one step after their nonlinearity, each ``[B, H]``.

    Four arrays, not one of ``[B, 4H]``: stored apart they leave the loop as they are computed, in one pass.
    """

    enter: Array
    forget: Array
    new: Array
    out: Array


class _Saved(NamedTuple):
    """What the way back needs: the gates of each step and the cell state it began with, ``[T, B, H]``."""

    gates: _Gates
    cell: Array


_State = tuple[Array, Array]
"""Hidden and cell state, ``[B, H]``; on the way back, their gradients."""


def _unroll(drive: Array, recurrent: Array) -> tuple[Array, _Saved]:
    """Hidden states ``[T, B, H]``, and what the way back needs."""

    def step(state: _State, drive: Array) -> tuple[_State, tuple[Array, _Saved]]:
        hidden, cell = state
        enter, forget, new, out = jnp.split(drive + hidden @ recurrent, 4, axis=-1)
        gates = _Gates(nn.sigmoid(enter), nn.sigmoid(forget), jnp.tanh(new), nn.sigmoid(out))
        after = gates.forget * cell + gates.enter * gates.new
        hidden = gates.out * jnp.tanh(after)
        return (hidden, after), (hidden, _Saved(gates, cell))

    zero = jnp.zeros_like(drive[0, :, : recurrent.shape[0]])
    return lax.scan(step, (zero, zero), drive)[1]


@jax.custom_vjp
def _recur(drive: Array, recurrent: Array) -> Array:
    return _unroll(drive, recurrent)[0]


def _forward(drive: Array, recurrent: Array) -> tuple[Array, tuple[Array, Array, _Saved]]:
    hidden, saved = _unroll(drive, recurrent)
    return hidden, (recurrent, hidden, saved)


def _backward(residuals: tuple[Array, Array, _Saved], pull: Array) -> tuple[Array, Array]:
    """Gradients of ``drive`` and ``recurrent`` from ``pull``, that of the hidden states."""
    recurrent, hidden, saved = residuals
    width = recurrent.shape[0]
    turned = (
        recurrent.T
    )  # here, for in the loop XLA would turn the whole kernel around at every step

    def step(state: _State, row: tuple[Array, _Saved]) -> tuple[_State, Array]:
        pull, saved = row
        drive, cell = _pull_back(saved, state[0] + pull, state[1])
        return (drive @ turned, cell), drive

    zero = jnp.zeros_like(pull[0])
    drive = lax.scan(step, (zero, zero), (pull, saved), reverse=True)[1]
    # A step begins with the hidden state after the one before; the first, with zeros, has no share. Rows flattened by hand, since a
    # contraction over two axes is copied first.
    return drive, hidden[:-1].reshape(-1, width).T @ drive[1:].reshape(-1, 4 * width)


def _pull_back(saved: _Saved, hidden: Array, cell: Array) -> _State:
    """One step backward: gradients of its ``drive`` ``[B, 4H]`` and of the cell state it began with, from those of its results."""
    (enter, forget, new, out), before = saved
    squashed = jnp.tanh(forget * before + enter * new)
    cell = cell + hidden * out * (1 - squashed**2)
    slopes = (
        cell * new * enter * (1 - enter),
        cell * before * forget * (1 - forget),
        cell * enter * (1 - new**2),
        hidden * squashed * out * (1 - out),
    )
    return jnp.concatenate(slopes, axis=-1), cell * forget


_recur.defvjp(_forward, _backward)


def _forget_open(key: Key, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Biases ``[4H]``: 1 for the forget gates, 0 for the others."""
    quarter = shape[0] // 4
    return jnp.zeros(shape, dtype).at[quarter : 2 * quarter].set(1)
