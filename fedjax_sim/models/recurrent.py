"""A recurrent layer for models of sequences.

Arrays have the time axis first, ``[T, B, ...]``, so the rows of one step are contiguous.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from fedjax_sim.core.errors import positive, require
from fedjax_sim.core.types import Array, Key


class LSTM(nn.Module):
    """A long short-term memory layer with forget gates, a flax.linen module.

    Maps ``[T, B, D]`` to hidden states ``[T, B, H]``. The input's contribution to the gates is one
    product over all ``T B`` rows, outside the loop over time; the loop is :func:`lstm`. Therefore
    the gradient of every weight is one product, too.

    | parameter | shape | initial value |
    |---|---|---|
    | ``input/kernel`` | ``[D, 4H]`` | LeCun normal |
    | ``input/bias`` | ``[4H]`` | 1 for the forget gates (open), 0 for the others |
    | ``recurrent`` | ``[H, 4H]`` | orthogonal |

    The 4H columns are the gates in, forget, new, out. Hidden and cell state are zero at the start
    of every call.

    Args:
      width: H.

    Raises:
      FedError: if the width is not positive, or the input does not have three axes.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import jax.numpy as jnp
      >>> layer = fs.models.LSTM(width=4)
      >>> hidden, variables = layer.init_with_output(jax.random.key(0), jnp.zeros((6, 2, 3)))
      >>> hidden.shape
      (6, 2, 4)
      >>> variables["params"]["recurrent"].shape
      (4, 16)

    Reference: see :func:`lstm`.
    """

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the hidden states ``[T, B, H]`` of inputs ``[T, B, D]``."""
        positive("width", self.width)
        require(
            x.ndim == 3,
            "an LSTM takes [T, B, D]",
            got=list(x.shape),
            fix="move the time axis to the front and merge the axes of the features",
        )
        drive = nn.Dense(4 * self.width, bias_init=_forget_open, name="input")(x)
        kernel = self.param(
            "recurrent", nn.initializers.orthogonal(), (self.width, 4 * self.width), jnp.float32
        )
        return lstm(drive, kernel.astype(drive.dtype))


def lstm(drive: Array, recurrent: Array) -> Array:
    """Computes the hidden states of an LSTM from the inputs' contribution to its gates.

    With ``i, f, g, o`` the four quarters of ``drive_t + h_{t-1} recurrent`` and ``h_0 = c_0 = 0``::

        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    The derivative is written by hand for speed; values and gradients equal those of a plain scan.
    The backward loop over time computes only the gradients of the gates, from saved gates after
    their nonlinearity. The gradient of ``recurrent`` is one product over all ``T B`` rows after the
    loop; automatic differentiation sums ``T`` small products, each of which reads and writes the
    whole kernel.

    Only reverse mode works: ``jax.grad`` and ``jax.vjp``, also nested, and ``jax.jvp`` of a
    gradient. ``jax.jvp`` of the layer itself raises an error in JAX; use ``flax.linen.RNN`` around
    an ``OptimizedLSTMCell`` there.

    Args:
      drive: ``[T, B, 4H]``, T at least 1: inputs times input kernel, plus bias. The columns are the
        gates in, forget, new, out.
      recurrent: ``[H, 4H]``, of the same dtype, which is the dtype of the computation.

    Returns:
      ``[T, B, H]``, the states ``h_1 ... h_T``.

    Raises:
      FedError: if shapes or dtypes do not match.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax.numpy as jnp
      >>> drive = jnp.zeros((6, 2, 16))
      >>> fs.models.lstm(drive, jnp.zeros((4, 16))).shape
      (6, 2, 4)

    Reference: Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 1997; Gers,
    Schmidhuber and Cummins, "Learning to Forget: Continual Prediction with LSTM", Neural
    Computation 2000 (the forget gate).
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
        fix="concatenate the four gates along the last axis, with the time axis first",
    )
    require(
        drive.dtype == recurrent.dtype,
        "gates and recurrent kernel must be of one dtype",
        got=got,
        fix="cast one of them",
    )
    return _recur(drive, recurrent)


class _Gates(NamedTuple):
    """Gates of one step after their nonlinearity, each ``[B, H]``.

    Four arrays and not one of ``[B, 4H]``, so that the loop writes each as it is computed, in one
    pass.
    """

    enter: Array
    forget: Array
    new: Array
    out: Array


class _Saved(NamedTuple):
    """Residuals of the backward loop, ``[T, B, H]``."""

    gates: _Gates
    cell: Array
    """Cell state before each step."""


_State = tuple[Array, Array]
"""Hidden and cell state, ``[B, H]``; in the backward loop, their gradients."""


def _unroll(drive: Array, recurrent: Array) -> tuple[Array, _Saved]:
    """Returns hidden states ``[T, B, H]`` and the residuals of the backward loop."""

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
    """Returns the gradients of ``drive`` and ``recurrent``.

    Args:
      residuals: the recurrent kernel, the hidden states ``[T, B, H]``, and the saved gates.
      pull: ``[T, B, H]``, gradient of the hidden states.
    """
    recurrent, hidden, saved = residuals
    width = recurrent.shape[0]
    transposed = recurrent.T  # outside the loop, in which XLA would transpose it at every step

    def step(state: _State, row: tuple[Array, _Saved]) -> tuple[_State, Array]:
        pull, saved = row
        drive, cell = _pull_back(saved, state[0] + pull, state[1])
        return (drive @ transposed, cell), drive

    zero = jnp.zeros_like(pull[0])
    drive = lax.scan(step, (zero, zero), (pull, saved), reverse=True)[1]
    # Step t uses the hidden state of step t - 1, and the first step uses zeros, which contribute
    # nothing. Rows are flattened first, because XLA copies the operands of a contraction over two
    # axes.
    return drive, hidden[:-1].reshape(-1, width).T @ drive[1:].reshape(-1, 4 * width)


def _pull_back(saved: _Saved, hidden: Array, cell: Array) -> _State:
    """Returns the gradients of a step's ``drive`` ``[B, 4H]`` and of the cell state before it.

    Args:
      saved: the step's gates and the cell state before it, ``[B, H]``.
      hidden: ``[B, H]``, gradient of the step's hidden state.
      cell: ``[B, H]``, gradient of the step's cell state.
    """
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
