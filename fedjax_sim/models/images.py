"""Models of images and of plain vectors.

| input | what becomes of it |
|---|---|
| ``[B, H, W, C]`` or ``[B, H, W]`` | the second gains a channel axis of 1 |
| ``[B, D]`` | taken by the models that flatten anyway: logistic, mlp |
| ``uint8`` | divided by 255, so that a data set can stay in bytes on the device |
| any other dtype | cast to float32 as it is |

All give float32 logits ``[B, classes]``, unnormalised, and have no state. Kernels start from flax's default (truncated normal of
variance 1 / fan-in), biases from 0. In every model of the zoo the last layer's parameters are called ``head``.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from fedjax_sim.core.errors import fraction, positive, require
from fedjax_sim.core.types import Array
from fedjax_sim.models.adapters import from_linen
from fedjax_sim.models.base import Model


def logistic(classes: int) -> Model:
    """Multinomial logistic regression: one dense layer, weights and biases both starting from 0.

    The loss is convex, so the starting point does not matter for where it ends, and zero makes runs comparable across seeds.

    | layer | output | parameters |
    |---|---|---|
    | flatten | ``[B, D]`` | |
    | dense | ``[B, classes]`` | (D + 1) classes |

    7,850 parameters for 28x28 images and 10 classes.
    """
    positive("classes", classes)
    return from_linen(_Dense(features=(classes,), zero=True))


def mlp(classes: int, hidden: tuple[int, ...] = (200, 200)) -> Model:
    """A multilayer perceptron with ReLU. The default is the "2NN" of McMahan et al., 2017, section 3.

    | layer | output | parameters, 28x28 images and 10 classes |
    |---|---|---|
    | flatten | ``[B, 784]`` | |
    | dense, ReLU | ``[B, 200]`` | 157,000 |
    | dense, ReLU | ``[B, 200]`` | 40,200 |
    | dense | ``[B, 10]`` | 2,010 |

    199,210 parameters, as the paper counts them.

    Reference: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
    """
    for width in (classes, *hidden):
        positive("every width of an mlp", width)
    return from_linen(_Dense(features=(*hidden, classes)))


def cnn(classes: int) -> Model:
    """The CNN of McMahan et al., 2017, section 3, for MNIST.

    | layer | output | parameters, 28x28x1 images and 10 classes |
    |---|---|---|
    | convolution 5x5, same, ReLU | ``[B, 28, 28, 32]`` | 832 |
    | max-pool 2x2 | ``[B, 14, 14, 32]`` | |
    | convolution 5x5, same, ReLU | ``[B, 14, 14, 64]`` | 51,264 |
    | max-pool 2x2 | ``[B, 7, 7, 64]`` | |
    | flatten, dense, ReLU | ``[B, 512]`` | 1,606,144 |
    | dense | ``[B, 10]`` | 5,130 |

    1,663,370 parameters, as the paper counts them. Images must be at least 4x4.

    Reference: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
    """
    positive("classes", classes)
    return from_linen(_Cnn(classes))


def emnist_cnn(
    classes: int = 62, dropout_convolution: float = 0.25, dropout_dense: float = 0.5
) -> Model:
    """The EMNIST character CNN of Reddi et al., 2021, appendix, which FedJAX's benchmarks use as well.

    | layer | output | parameters, 28x28x1 images and 62 classes |
    |---|---|---|
    | convolution 3x3, valid, ReLU | ``[B, 26, 26, 32]`` | 320 |
    | convolution 3x3, valid, ReLU | ``[B, 24, 24, 64]`` | 18,496 |
    | max-pool 2x2, dropout | ``[B, 12, 12, 64]`` | |
    | flatten, dense, ReLU, dropout | ``[B, 128]`` | 1,179,776 |
    | dense | ``[B, 62]`` | 7,998 |

    1,206,590 parameters. Images must be at least 6x6.

    Args:
      classes: 62 for digits and both cases of letters, 10 for digits alone.
      dropout_convolution: share of values dropped after pooling.
      dropout_dense: share of values dropped before the last layer.

    Reference: Reddi et al., "Adaptive Federated Optimization", ICLR 2021; Ro, Suresh and Wu, "FedJAX", 2021.
    """
    positive("classes", classes)
    fraction("dropout_convolution", dropout_convolution, zero=True)
    fraction("dropout_dense", dropout_dense, zero=True)
    return from_linen(_EmnistCnn(classes, dropout_convolution, dropout_dense))


def numbers(x: Array) -> Array:
    """Inputs as floats: bytes become ``[0, 1]``, anything else keeps its values. Floats stay as wide as they are, and what was none is
    weakly float32, so that it is the parameters that say how a model computes."""
    return (
        x
        if jnp.issubdtype(x.dtype, jnp.floating)
        else x * (1 / 255 if x.dtype == jnp.uint8 else 1.0)
    )


def images(x: Array, least: int) -> Array:
    """Inputs as floats ``[B, H, W, C]``, checked to be at least ``least`` pixels high and wide."""
    shape = list(x.shape)
    require(
        x.ndim in (3, 4),
        "a convolutional model takes images [B, H, W, C] or [B, H, W]",
        got=shape,
        fix="reshape the examples or choose mlp",
    )
    large = min(shape[1:3]) >= least
    require(
        large,
        f"this model needs images of at least {least}x{least} pixels",
        got=shape,
        fix="use larger images or choose mlp",
    )
    return numbers(x if x.ndim == 4 else x[..., None])


def pool(x: Array) -> Array:
    """Max-pooling over 2x2 windows, ``[B, H, W, C] -> [B, H // 2, W // 2, C]``.

    A maximum over reshaped windows: the gradient of ``nn.max_pool`` (select-and-scatter) takes ten times as long on a CPU. Where
    entries of a window tie, they share its gradient.
    """
    batch, height, width, channels = x.shape
    windows = x[:, : height // 2 * 2, : width // 2 * 2].reshape(
        batch, height // 2, 2, width // 2, 2, channels
    )
    return jnp.max(windows, axis=(2, 4))


class _Dense(nn.Module):
    features: tuple[int, ...]
    zero: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = numbers(x).reshape(x.shape[0], -1)
        for layer, width in enumerate(self.features[:-1]):
            x = nn.relu(nn.Dense(width, name=f"hidden_{layer}")(x))
        start = nn.initializers.zeros if self.zero else nn.initializers.lecun_normal()
        return nn.Dense(self.features[-1], kernel_init=start, name="head")(x)


class _Cnn(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = images(x, least=4)
        x = pool(nn.relu(nn.Conv(32, (5, 5), name="conv_0")(x)))
        x = pool(nn.relu(nn.Conv(64, (5, 5), name="conv_1")(x)))
        x = nn.relu(nn.Dense(512, name="hidden")(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes, name="head")(x)


class _EmnistCnn(nn.Module):
    classes: int
    dropout_convolution: float
    dropout_dense: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = images(x, least=6)
        x = nn.relu(nn.Conv(32, (3, 3), padding="VALID", name="conv_0")(x))
        x = nn.relu(nn.Conv(64, (3, 3), padding="VALID", name="conv_1")(x))
        x = nn.Dropout(self.dropout_convolution, deterministic=not train)(pool(x))
        x = nn.relu(nn.Dense(128, name="hidden")(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(self.dropout_dense, deterministic=not train)(x)
        return nn.Dense(self.classes, name="head")(x)
