"""The models of the workloads as pure functions ``(params, x) -> logits``, for peers built on JAX.

Parameters are a flat dict. Written as a user of such a peer would: plain ``jax.nn`` and ``lax``,
automatic derivatives, a scanned LSTM. ``x`` is as in the job: images ``[b, h, w, c]`` or vectors,
and tokens ``[b, t]``.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from protocol import Job

Tree = dict[str, jax.Array]


def apply(job: Job) -> Callable[[Tree, jax.Array], jax.Array]:
    """The job's model: float32 logits ``[b, classes]``, or ``[b, t, classes]`` of sequences."""
    return MODELS[job.model]


def losses(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Cross-entropy of each example ``[b]``; of a sequence, the mean over its tokens."""
    each = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], axis=-1)[..., 0]
    return each.reshape(len(y), -1).mean(axis=1)


def dense(params: Tree, name: str, x: jax.Array) -> jax.Array:
    return x @ params[f"{name}/kernel"] + params[f"{name}/bias"]


def convolve(
    params: Tree, name: str, x: jax.Array, stride: int = 1, padding: str = "SAME"
) -> jax.Array:
    kernel = params[f"{name}/kernel"]
    x = lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return x + params[f"{name}/bias"] if f"{name}/bias" in params else x


def pool(x: jax.Array) -> jax.Array:
    """Max-pooling over 2x2 windows of an even image.

    As a maximum over an axis, because that gradient is faster on CPUs.
    """
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def norm(params: Tree, name: str, x: jax.Array) -> jax.Array:
    """Group normalisation of two groups."""
    b, h, w, c = x.shape
    groups = x.reshape(b, h * w, 2, c // 2)
    mean = groups.mean(axis=(1, 3), keepdims=True)
    spread = groups.var(axis=(1, 3), keepdims=True)
    x = ((groups - mean) * lax.rsqrt(spread + 1e-6)).reshape(b, h, w, c)
    return x * params[f"{name}/scale"] + params[f"{name}/bias"]


def perceptron(params: Tree, x: jax.Array) -> jax.Array:
    """The logistic model and the multilayer perceptron."""
    x = x.reshape(len(x), -1)
    for layer in range(sum(name.endswith("/kernel") for name in params) - 1):
        x = jax.nn.relu(dense(params, f"hidden_{layer}", x))
    return dense(params, "head", x)


def emnist_cnn(params: Tree, x: jax.Array) -> jax.Array:
    """The EMNIST CNN, without dropout."""
    x = jax.nn.relu(convolve(params, "conv_0", x, padding="VALID"))
    x = pool(jax.nn.relu(convolve(params, "conv_1", x, padding="VALID")))
    return dense(params, "head", jax.nn.relu(dense(params, "hidden", x.reshape(len(x), -1))))


def char_lstm(params: Tree, x: jax.Array) -> jax.Array:
    """The character LSTM; the inputs' share of the gates is one product over all of time."""
    x = params["embedding_of_tokens/embedding"][x.T]
    for layer in range(sum(name.endswith("/recurrent") for name in params)):
        x = lstm(dense(params, f"lstm_{layer}/input", x), params[f"lstm_{layer}/recurrent"])
    return dense(params, "head", x.swapaxes(0, 1))


def lstm(drive: jax.Array, kernel: jax.Array) -> jax.Array:
    """One layer; gates are ordered in, forget, new, out.

    Args:
      drive: the inputs' share of the gates, ``[t, b, 4h]``.
      kernel: recurrent, ``[h, 4h]``.

    Returns:
      Hidden states ``[t, b, h]``.
    """

    def step(
        carry: tuple[jax.Array, jax.Array], drive: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        hidden, cell = carry
        enter, forget, new, out = jnp.split(drive + hidden @ kernel, 4, axis=-1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(out) * jnp.tanh(cell)
        return (hidden, cell), hidden

    zero = jnp.zeros((drive.shape[1], len(kernel)))
    return lax.scan(step, (zero, zero), drive)[1]


def resnet(params: Tree, x: jax.Array) -> jax.Array:
    """ResNet-18 with group normalisation."""
    x = jax.nn.relu(norm(params, "stem_norm", convolve(params, "stem", x)))
    for name in sorted({name.split("/")[0] for name in params if name.startswith("stage_")}):
        before, width = params[f"{name}/conv_0/kernel"].shape[2:]
        stride = 1 if before == width else 2
        y = jax.nn.relu(
            norm(params, f"{name}/norm_0", convolve(params, f"{name}/conv_0", x, stride))
        )
        y = norm(params, f"{name}/norm_1", convolve(params, f"{name}/conv_1", y))
        if f"{name}/shortcut/kernel" in params:
            x = norm(
                params, f"{name}/shortcut_norm", convolve(params, f"{name}/shortcut", x, stride)
            )
        x = jax.nn.relu(x + y)
    return dense(params, "head", x.mean(axis=(1, 2)))


MODELS = {
    "logistic": perceptron,
    "mlp": perceptron,
    "emnist_cnn": emnist_cnn,
    "char_lstm": char_lstm,
    "resnet": resnet,
}
