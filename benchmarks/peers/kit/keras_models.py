"""The models of the workloads in Keras 2, whose arrays have the layout of flax already.

Layers have flax's names, with ``.`` for ``/``. Keras orders an LSTM's gates as our model does and
has one bias.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from protocol import Job, Params

layers = tf.keras.layers

KINDS = {
    "kernel": "kernel",
    "bias": "bias",
    "embeddings": "embedding",
    "gamma": "scale",
    "beta": "bias",
}
OF_LSTM = {"kernel": "input/kernel", "bias": "input/bias", "recurrent_kernel": "recurrent"}


def build(job: Job) -> tf.keras.Model:
    """The job's model, ``inputs -> logits``, its parameters not yet set."""
    tokens = job.model == "char_lstm"
    inputs = layers.Input(job.x.shape[1:], dtype=tf.int32 if tokens else tf.float32)
    return tf.keras.Model(inputs, MODELS[job.model](job, inputs))


def names(model: tf.keras.Model) -> list[str]:
    """flax's names of the model's trainable parameters, in their order."""
    found = []
    for layer in model.layers:
        known = OF_LSTM if isinstance(layer, layers.LSTM) else KINDS
        for variable in layer.trainable_weights:
            kind = variable.name.split("/")[-1].split(":")[0]
            found.append(f"{layer.name.replace('.', '/')}/{known[kind]}")
    return found


def in_order(model: tf.keras.Model, params: Params) -> list[np.ndarray]:
    """Parameters as the model orders them."""
    return [params[name] for name in names(model)]


def dense(job: Job, x: tf.Tensor) -> tf.Tensor:
    """Dense layers with ReLU between them: the logistic model and the multilayer perceptron."""
    hidden = sum(name.endswith("/kernel") for name in job.init) - 1
    for i in range(hidden):
        x = layers.Dense(job.init[f"hidden_{i}/kernel"].shape[1], "relu", name=f"hidden_{i}")(x)
    return layers.Dense(job.classes, name="head")(x)


def emnist_cnn(job: Job, x: tf.Tensor) -> tf.Tensor:
    """The EMNIST CNN, without dropout."""
    x = layers.Conv2D(32, 3, activation="relu", name="conv_0")(x)
    x = layers.Conv2D(64, 3, activation="relu", name="conv_1")(x)
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    x = layers.Dense(128, "relu", name="hidden")(x)
    return layers.Dense(job.classes, name="head")(x)


def char_lstm(job: Job, x: tf.Tensor) -> tf.Tensor:
    """The character LSTM."""
    x = layers.Embedding(
        *job.init["embedding_of_tokens/embedding"].shape, name="embedding_of_tokens"
    )(x)
    for i in range(sum(name.endswith("/recurrent") for name in job.init)):
        x = layers.LSTM(
            len(job.init[f"lstm_{i}/recurrent"]), return_sequences=True, name=f"lstm_{i}"
        )(x)
    return layers.Dense(job.classes, name="head")(x)


def resnet(job: Job, x: tf.Tensor) -> tf.Tensor:
    """ResNet-18 with group normalisation; its shape is read off the initial parameters."""
    x = tf.nn.relu(_same(job, x, "stem", "stem_norm", 1))
    for block in sorted({name.split("/")[0] for name in job.init if name.startswith("stage_")}):
        stride = 1 if f"{block}/shortcut/kernel" not in job.init else 2
        y = tf.nn.relu(_same(job, x, f"{block}.conv_0", f"{block}.norm_0", stride))
        y = _same(job, y, f"{block}.conv_1", f"{block}.norm_1", 1)
        x = (
            _same(job, x, f"{block}.shortcut", f"{block}.shortcut_norm", stride)
            if stride > 1
            else x
        )
        x = tf.nn.relu(x + y)
    return layers.Dense(job.classes, name="head")(tf.reduce_mean(x, (1, 2)))


def _same(job: Job, x: tf.Tensor, name: str, norm: str, stride: int) -> tf.Tensor:
    """A convolution without bias and a group normalisation of two groups, with flax's epsilon."""
    kernel = job.init[f"{name.replace('.', '/')}/kernel"].shape
    x = layers.Conv2D(kernel[3], kernel[0], stride, "same", use_bias=False, name=name)(x)
    return layers.GroupNormalization(2, epsilon=1e-6, name=norm)(x)


MODELS = {
    "logistic": dense,
    "mlp": dense,
    "emnist_cnn": emnist_cnn,
    "char_lstm": char_lstm,
    "resnet": resnet,
}
