"""Models of time series: readings ``[B, T, sensors]`` to logits ``[B, classes]``."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from fedjax_sim.core.errors import fraction, positive, require
from fedjax_sim.core.types import Array
from fedjax_sim.models.adapters import from_linen
from fedjax_sim.models.base import Model
from fedjax_sim.models.images import numbers


def series_cnn(classes: int, width: int = 64, span: int = 5, dropout: float = 0.5) -> Model:
    """Two convolutions over time, each followed by max-pooling over four steps.

    | layer | output | parameters, 128 steps of 9 sensors and 6 classes |
    |---|---|---|
    | convolution over 5 steps, same, ReLU | ``[B, 128, 64]`` | 2,944 |
    | max-pool over 4 | ``[B, 32, 64]`` | |
    | convolution over 5 steps, same, ReLU | ``[B, 32, 64]`` | 20,544 |
    | max-pool over 4 | ``[B, 8, 64]`` | |
    | flatten, dropout, dense | ``[B, 6]`` | 3,078 |

    26,566 parameters. Series must have at least 16 steps.

    Args:
      classes: number of logits.
      width: channels of both convolutions.
      span: steps under the kernel of each convolution, an odd number.
      dropout: share of values dropped before the last layer, in [0, 1].

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import numpy as np
      >>> model = fs.models.series_cnn(classes=6, width=8)
      >>> x = np.zeros((2, 16, 9), np.float32)
      >>> params, state = model.init(jax.random.key(0), x)
      >>> model.apply(params, state, x, train=False, key=None)[0].shape
      (2, 6)
    """
    for name, value in (("classes", classes), ("width", width), ("span", span)):
        positive(name, value)
    require(
        span % 2 == 1,
        "span must be odd, so that the kernel has a middle",
        got=span,
        fix="use 5",
        setting="span",
    )
    fraction("dropout", dropout, zero=True)
    return from_linen(_SeriesCnn(classes, width, span, dropout))


class _SeriesCnn(nn.Module):
    classes: int
    width: int
    span: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        require(
            x.ndim == 3 and x.shape[1] >= 16,
            "a model of series takes [B, T, sensors] with T of 16 or more",
            got=list(x.shape),
            fix="reshape the examples or choose mlp",
        )
        x = numbers(x)
        for layer in range(2):
            x = nn.relu(nn.Dense(self.width, name=f"conv_{layer}")(_windows(x, self.span)))
            x = jnp.max(x[:, : x.shape[1] // 4 * 4].reshape(x.shape[0], -1, 4, self.width), axis=2)
        x = nn.Dropout(self.dropout, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(self.classes, name="head")(x)


def _windows(x: Array, span: int) -> Array:
    """Returns for each step the ``span`` steps around it, ``[B, T, C] -> [B, T, span * C]``.

    With it a convolution becomes a matrix product, which is fast in a loop on every device.
    """
    padded = jnp.pad(x, ((0, 0), (span // 2, span // 2), (0, 0)))
    shifted = [padded[:, shift : shift + x.shape[1]] for shift in range(span)]
    return jnp.concatenate(shifted, axis=-1)
