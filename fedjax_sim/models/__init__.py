"""Models with one interface, :class:`Model`: adapters of neural-network libraries, and models.

The models are written in flax.linen.
"""

from __future__ import annotations

from fedjax_sim.core import registry
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

registry.declare(
    registry.Kind(
        "model",
        "models",
        "what is trained; the task says how many outputs it has",
        key="name",
        section="model",
        provided=1,
    )
)
for factory in (
    logistic,
    mlp,
    cnn,
    emnist_cnn,
    resnet,
    char_lstm,
    transformer,
    series_cnn,
    word_mean,
):
    registry.register("model", factory)

REGISTRY = registry.entries("model")
"""Models by name; their keyword arguments are the settings that a configuration file may give."""

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
