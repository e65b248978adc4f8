"""Models of images and of vectors.

| input | treatment |
|---|---|
| ``[B, H, W, C]`` | used as it is |
| ``[B, H, W]`` | gains a channel axis of size 1 |
| ``[B, D]`` | accepted by the models that flatten their input: logistic, mlp |
| ``uint8`` | divided by 255, so that a data set can stay in bytes on the device |
| any other dtype | cast to float32 |

All models return unnormalised float32 logits ``[B, classes]`` and have no state. Kernels have the
default initial values of flax (truncated normal of variance 1 / fan-in), biases start at 0. In
every model of this package the parameters of the last layer are called ``head``.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from fedjax_sim.core.errors import fraction, positive, require
from fedjax_sim.core.types import Array
from fedjax_sim.models.adapters import from_linen
from fedjax_sim.models.base import Model


def logistic(classes: int) -> Model:
    """Multinomial logistic regression: one dense layer whose weights and biases start at 0.

    The loss is convex, so the minimum does not depend on the initial values, and starting at 0
    makes runs with different seeds comparable.

    | layer | output | parameters |
    |---|---|---|
    | flatten | ``[B, D]`` | |
    | dense | ``[B, classes]`` | (D + 1) classes |

    7,850 parameters for 28x28 images and 10 classes.

    Args:
      classes: number of logits.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import numpy as np
      >>> model = fs.models.logistic(classes=10)
      >>> x = np.zeros((4, 28, 28), np.uint8)
      >>> params, state = model.init(jax.random.key(0), x)
      >>> model.apply(params, state, x, train=False, key=None)[0].shape
      (4, 10)
    """
    positive("classes", classes)
    return from_linen(_Dense(features=(classes,), zero=True))


def mlp(classes: int, hidden: tuple[int, ...] = (200, 200)) -> Model:
    """A multilayer perceptron with ReLU.

    The default is the "2NN" of McMahan et al., 2017, section 3.

    | layer | output | parameters, 28x28 images and 10 classes |
    |---|---|---|
    | flatten | ``[B, 784]`` | |
    | dense, ReLU | ``[B, 200]`` | 157,000 |
    | dense, ReLU | ``[B, 200]`` | 40,200 |
    | dense | ``[B, 10]`` | 2,010 |

    199,210 parameters, as in the paper.

    Args:
      classes: number of logits.
      hidden: widths of the hidden layers.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import numpy as np
      >>> model = fs.models.mlp(classes=10, hidden=(16,))
      >>> x = np.zeros((4, 8, 8, 1), np.float32)
      >>> params, state = model.init(jax.random.key(0), x)
      >>> jax.tree.map(np.shape, params)
      {'head': {'bias': (10,), 'kernel': (16, 10)}, 'hidden_0': {'bias': (16,), 'kernel': (64, 16)}}
      >>> model.apply(params, state, x, train=False, key=None)[0].shape
      (4, 10)

    Reference: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017.
    """
    positive("classes", classes)
    for width in hidden:
        positive("hidden", width)
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

    1,663,370 parameters, as in the paper. Images must have at least 4x4 pixels.

    Args:
      classes: number of logits.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import numpy as np
      >>> model = fs.models.cnn(classes=10)
      >>> x = np.zeros((4, 28, 28, 1), np.uint8)
      >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      1663370

    Reference: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017.
    """
    positive("classes", classes)
    return from_linen(_Cnn(classes))


def emnist_cnn(
    classes: int = 62, dropout_convolution: float = 0.25, dropout_dense: float = 0.5
) -> Model:
    """The EMNIST character CNN of Reddi et al., 2021, appendix; FedJAX's benchmarks use it, too.

    | layer | output | parameters, 28x28x1 images and 62 classes |
    |---|---|---|
    | convolution 3x3, valid, ReLU | ``[B, 26, 26, 32]`` | 320 |
    | convolution 3x3, valid, ReLU | ``[B, 24, 24, 64]`` | 18,496 |
    | max-pool 2x2, dropout | ``[B, 12, 12, 64]`` | |
    | flatten, dense, ReLU, dropout | ``[B, 128]`` | 1,179,776 |
    | dense | ``[B, 62]`` | 7,998 |

    1,206,590 parameters. Images must have at least 6x6 pixels.

    Args:
      classes: number of logits: 62 for digits and letters of both cases, 10 for digits only.
      dropout_convolution: share of values dropped after pooling, in [0, 1].
      dropout_dense: share of values dropped before the last layer, in [0, 1].

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import numpy as np
      >>> model = fs.models.emnist_cnn(classes=62)
      >>> x = np.zeros((4, 28, 28, 1), np.uint8)
      >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      1206590

    Reference: Reddi et al., "Adaptive Federated Optimization", ICLR 2021; Ro, Suresh and Wu,
    "FedJAX", 2021.
    """
    positive("classes", classes)
    fraction("dropout_convolution", dropout_convolution, zero=True)
    fraction("dropout_dense", dropout_dense, zero=True)
    return from_linen(_EmnistCnn(classes, dropout_convolution, dropout_dense))


def numbers(x: Array) -> Array:
    """Inputs as floats, in the given shape.

    Bytes are scaled to [0, 1]; other values do not change. Floats keep their dtype. Integers become
    weakly typed float32, so the dtype of the parameters decides the dtype of the computation.
    """
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return x * (1 / 255 if x.dtype == jnp.uint8 else 1.0)


def images(x: Array, least: int) -> Array:
    """Inputs as floats ``[B, H, W, C]``.

    Args:
      x: ``[B, H, W, C]`` or ``[B, H, W]``, of any dtype.
      least: smallest height and width, in pixels, that the model accepts.

    Raises:
      FedError: if ``x`` has another number of axes, or images are smaller.
    """
    shape = list(x.shape)
    require(
        x.ndim in (3, 4),
        "a convolutional model takes images [B, H, W, C] or [B, H, W]",
        got=shape,
        fix="reshape the examples or choose mlp",
    )
    require(
        min(shape[1:3]) >= least,
        f"this model needs images of at least {least}x{least} pixels",
        got=shape,
        fix="use larger images or choose mlp",
    )
    return numbers(x if x.ndim == 4 else x[..., None])


def pool(x: Array) -> Array:
    """Max-pooling over 2x2 windows, ``[B, H, W, C] -> [B, H // 2, W // 2, C]``.

    Computed as a maximum over reshaped windows, because the gradient of ``nn.max_pool``
    (select-and-scatter) takes ten times as long on a CPU. Equal maxima of a window share its
    gradient.
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
