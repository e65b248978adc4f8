"""Models behind one interface, :class:`Model`; adapters for neural-network libraries; a small zoo in flax.linen."""

from __future__ import annotations

from collections.abc import Callable

from fedjax_sim.models.adapters import (
    from_equinox,
    from_functions,
    from_haiku,
    from_linen,
    from_nnx,
)
from fedjax_sim.models.base import Model
from fedjax_sim.models.images import cnn, emnist_cnn, logistic, mlp
from fedjax_sim.models.precision import mixed_precision
from fedjax_sim.models.recurrent import LSTM, lstm
from fedjax_sim.models.resnet import resnet
from fedjax_sim.models.sequences import char_lstm, transformer
from fedjax_sim.models.series import series_cnn
from fedjax_sim.models.texts import word_mean

REGISTRY: dict[str, Callable[..., Model]] = {
    "logistic": logistic,
    "mlp": mlp,
    "cnn": cnn,
    "emnist_cnn": emnist_cnn,
    "resnet": resnet,
    "char_lstm": char_lstm,
    "transformer": transformer,
    "series_cnn": series_cnn,
    "word_mean": word_mean,
}
"""Factories by name; their keyword arguments are the settings that a configuration may give."""

__all__ = [
    "LSTM",
    "REGISTRY",
    "Model",
    "char_lstm",
    "cnn",
    "emnist_cnn",
    "from_equinox",
    "from_functions",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "logistic",
    "lstm",
    "mixed_precision",
    "mlp",
    "resnet",
    "series_cnn",
    "transformer",
    "word_mean",
]
