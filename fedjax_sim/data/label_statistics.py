"""How labels are spread over clients: what makes a federation differ from one pile of data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fedjax_sim.core.errors import positive, require
from fedjax_sim.data.population import Population

ENTRIES = 2**22
"""Client-label pairs counted at once."""
MOST = 10_000
"""Labels that are counted; where there are more, they are other numbers."""


class Spread(NamedTuple):
    """Labels over clients. Entropies are in nats: 0 where a client has one label, ``log(classes)`` where it has all alike."""

    counts: np.ndarray
    """int64[classes], over all clients."""
    classes: float
    """Mean number of labels that a client has."""
    entropy: float
    """Mean entropy of a client's labels."""
    overall: float
    """Entropy of all clients' labels together; what is missing to it is skew."""
    shares: np.ndarray
    """float64[groups, classes], each label's share of a client's examples, or its mean over a group of clients."""
    grouped: bool
    """Whether these are groups, of clients sorted by their most frequent label and its share; otherwise clients in their order."""


def label_spread(data: Population, classes: int, groups: int = 200) -> Spread | None:
    """Counts labels in two passes over ``y``, some clients at a time.

    Args:
      data: a population whose ``y`` is one integer array.
      classes: labels lie in ``0 .. classes - 1``.
      groups: where there are more clients, they are grouped into so many.

    Returns:
      The spread, or ``None`` where an example has not one label but several or none, or there are more than :data:`MOST`.
    """
    positive("groups", groups)
    y = data.y
    if not isinstance(y, np.ndarray) or y.ndim != 1 or y.dtype.kind not in "iu" or classes > MOST:
        return None
    total, kinds, entropies = np.zeros(classes, np.int64), 0, 0.0
    top, share = np.zeros(data.clients, np.int64), np.zeros(data.clients)
    for mine, counts in _counts(data, y, classes):
        total += counts.sum(0)
        kinds += np.count_nonzero(counts)
        shares = _shares(counts)
        entropies += float(_entropy(shares).sum())
        top[mine], share[mine] = shares.argmax(1), shares.max(1)
    grouped = data.clients > groups
    place = np.arange(data.clients)
    if grouped:
        place[np.lexsort((-share, top))] = np.arange(data.clients) * groups // data.clients
    mean = (
        kinds / data.clients,
        entropies / data.clients,
        float(_entropy(_shares(total[None]))[0]),
    )
    return Spread(total, *mean, _means(data, y, classes, place), grouped)


def _means(data: Population, y: np.ndarray, classes: int, place: np.ndarray) -> np.ndarray:
    """The mean shares of the clients that have the same place."""
    out = np.zeros((int(place.max()) + 1, classes))
    for mine, counts in _counts(data, y, classes):
        np.add.at(out, place[mine], _shares(counts))
    return out / np.bincount(place)[:, None]


def _counts(data: Population, y: np.ndarray, classes: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Clients, and int64[clients, classes] of them."""
    step = max(1, ENTRIES // classes)
    for first in range(0, data.clients, step):
        mine = slice(first, min(first + step, data.clients))
        sizes = data.sizes[mine]
        labels = np.asarray(y[data.offsets[mine.start] : data.offsets[mine.stop]], np.int64)
        low, high = labels.min(initial=0), labels.max(initial=0)
        require(
            0 <= low <= high < classes,
            f"labels lie in 0 .. {classes - 1}",
            got=f"{low} .. {high}",
            fix="say how many classes there are",
        )
        place = np.repeat(np.arange(len(sizes)) * classes, sizes)
        yield mine, np.bincount(place + labels, minlength=len(sizes) * classes).reshape(-1, classes)


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)
