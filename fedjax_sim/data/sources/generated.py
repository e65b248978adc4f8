"""Random clients, generated while they are written: for measurements with many clients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from fedjax_sim.core.errors import not_negative, positive, require
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.partition import generator
from fedjax_sim.data.population import population
from fedjax_sim.data.prepared.writer import BLOCK
from fedjax_sim.data.sources.base import SourceData

CENTRES = 3
"""Stream of the seed that draws the centres of the classes."""


def matches(path: Path) -> bool:
    """Whether the source is the word ``generated``, and no file has that name."""
    return str(path) == "generated" and not path.exists()


def read(
    path: Path,
    *,
    clients: int = 100,
    examples: int = 100,
    sizes: Literal["equal", "lognormal"] = "equal",
    spread: float = 1.0,
    shape: tuple[int, ...] = (28,),
    classes: int = 10,
    alpha: float | None = None,
    dtype: Literal["float32", "uint8"] = "float32",
    seed: int = 0,
) -> SourceData:
    """Generates examples around a random centre of their class, so that a model can learn them.

    Args:
      path: not used.
      clients: N.
      examples: number of examples of each client; the median if sizes differ.
      sizes: ``"equal"`` or ``"lognormal"``.
      spread: standard deviation of the logarithm of the sizes, for ``"lognormal"``.
      shape: shape of one example.
      classes: number of labels.
      alpha: concentration of the Dirichlet distribution of each client's label frequencies; by
        default all labels are equally frequent.
      dtype: dtype of ``x``.
      seed: seed of all draws. Equal settings make equal data.

    Example:
      >>> from pathlib import Path
      >>> from fedjax_sim.data.sources.generated import read
      >>> source = read(Path("generated"), clients=3, examples=5, shape=(2,), classes=4)
      >>> (block,) = source.blocks
      >>> block.train.x.shape, block.train.sizes.tolist()
      ((15, 2), [5, 5, 5])
    """
    settings = {
        "clients": clients,
        "examples": examples,
        "classes": classes,
        "alpha": 1 if alpha is None else alpha,
    }
    for name, value in settings.items():
        positive(name, value)
    require(
        bool(shape) and min(shape) > 0,
        "an example has at least one number",
        got=shape,
        fix="give shape=[28]",
        setting="shape",
    )
    not_negative("spread", spread)
    centres = generator(seed, CENTRES).random((classes, *shape), np.float32)
    example_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    step = max(1, BLOCK // max(1, example_bytes * examples))

    def blocks() -> Iterator[Federation]:
        for number, first in enumerate(range(0, clients, step)):
            rng = generator(seed, CENTRES, number)
            count = min(step, clients - first)
            block_sizes = (
                np.full(count, examples)
                if sizes == "equal"
                else _lognormal(rng, count, examples, spread)
            )
            y = _labels(rng, block_sizes, classes, alpha)
            x = _examples(rng, centres, y, dtype)
            yield Federation(population(x, y, np.cumsum([0, *block_sizes])))

    return SourceData(blocks(), classes=classes)


def _lognormal(rng: np.random.Generator, count: int, median: int, spread: float) -> np.ndarray:
    return np.maximum(1, np.round(rng.lognormal(math.log(median), spread, count))).astype(np.int64)


def _labels(
    rng: np.random.Generator, sizes: np.ndarray, classes: int, alpha: float | None
) -> np.ndarray:
    """Draws labels by inverting the cumulative label frequencies of each client.

    Args:
      rng: source of random numbers.
      sizes: int64 ``[N]``, number of examples of each client.
      classes: number of labels.
      alpha: concentration of the Dirichlet distribution; ``None`` draws labels uniformly.

    Returns:
      int32 ``[sum of sizes]``, client after client.
    """
    if alpha is None:
        return rng.integers(0, classes, int(sizes.sum()), np.int32)
    ends = np.cumsum(rng.dirichlet(np.full(classes, alpha), len(sizes)), axis=1)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    uniform = rng.random(int(sizes.sum()))
    # Client i's cumulative frequencies plus i are ascending over all clients, so that one search
    # finds the labels of all clients.
    flat = (ends + np.arange(len(sizes))[:, None]).reshape(-1)
    labels = np.searchsorted(flat, uniform + owner) - owner * classes
    return np.minimum(labels, classes - 1).astype(np.int32)


def _examples(
    rng: np.random.Generator, centres: np.ndarray, y: np.ndarray, dtype: str
) -> np.ndarray:
    shape = (len(y), *centres.shape[1:])
    if dtype == "float32":
        return rng.standard_normal(shape, np.float32) * np.float32(0.3) + centres[y]
    noise = rng.integers(0, 64, shape, np.uint8, endpoint=True)
    return (centres * 191).astype(np.uint8)[y] + noise
