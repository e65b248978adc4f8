"""Clients that are made up while they are written, as many as the disk holds: to see what size costs."""

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
from fedjax_sim.data.sources.base import Found

CENTRES = 3
"""Stream of the seed that places the classes."""


def matches(path: Path) -> bool:
    """The word ``generated``, where nothing is called so."""
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
) -> Found:
    """Each class is a cloud around a centre of its own, so that a model can learn them.

    Args:
      path: not looked at.
      clients: N.
      examples: examples of a client, the median where sizes differ.
      sizes: whether all clients have as many.
      spread: standard deviation of the logarithm of the sizes.
      shape: of one example.
      classes: how many.
      alpha: concentration of the Dirichlet distribution that each client's labels are drawn from; without it all labels are as frequent.
      dtype: of ``x``.
      seed: of everything. Equal settings make equal data.
    """
    for name, value in {
        "clients": clients,
        "examples": examples,
        "classes": classes,
        "alpha": 1 if alpha is None else alpha,
    }.items():
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
    row = math.prod(shape) * np.dtype(dtype).itemsize
    step = max(1, BLOCK // max(1, row * examples))

    def blocks() -> Iterator[Federation]:
        for number, first in enumerate(range(0, clients, step)):
            rng, count = generator(seed, CENTRES, number), min(step, clients - first)
            each = (
                np.full(count, examples)
                if sizes == "equal"
                else _lognormal(rng, count, examples, spread)
            )
            y = _labels(rng, each, classes, alpha)
            yield Federation(
                population(_examples(rng, centres, y, dtype), y, np.cumsum([0, *each]))
            )

    return Found(blocks(), classes=classes)


def _lognormal(rng: np.random.Generator, count: int, median: int, spread: float) -> np.ndarray:
    return np.maximum(1, np.round(rng.lognormal(math.log(median), spread, count))).astype(np.int64)


def _labels(
    rng: np.random.Generator, sizes: np.ndarray, classes: int, alpha: float | None
) -> np.ndarray:
    """int32 ``[sum of sizes]``, by client: a uniform number's place among the client's cumulative frequencies."""
    if alpha is None:
        return rng.integers(0, classes, int(sizes.sum()), np.int32)
    ends = np.cumsum(rng.dirichlet(np.full(classes, alpha), len(sizes)), axis=1)
    owner, chance = np.repeat(np.arange(len(sizes)), sizes), rng.random(int(sizes.sum()))
    # All clients' frequencies end to end are ascending, so that one search finds everybody's labels.
    flat = (ends + np.arange(len(sizes))[:, None]).reshape(-1)
    return np.minimum(np.searchsorted(flat, chance + owner) - owner * classes, classes - 1).astype(
        np.int32
    )


def _examples(
    rng: np.random.Generator, centres: np.ndarray, y: np.ndarray, dtype: str
) -> np.ndarray:
    if dtype == "float32":
        return (
            rng.standard_normal((len(y), *centres.shape[1:]), np.float32) * np.float32(0.3)
            + centres[y]
        )
    return (centres * 191).astype(np.uint8)[y] + rng.integers(
        0, 64, (len(y), *centres.shape[1:]), np.uint8, endpoint=True
    )
