"""How labels are distributed over clients: counts, entropies and shares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fedjax_sim.core.errors import positive, require
from fedjax_sim.data.population import Population

ENTRIES = 2**22
"""Client-label pairs counted at once."""
MAX_CLASSES = 10_000
"""Most labels that are counted; an integer ``y`` with more values is not taken for labels."""


class Spread(NamedTuple):
    """Distribution of labels over clients.

    Entropies are in nats: 0 if a client has one label, ``log(classes)`` if it has all in equal
    numbers.
    """

    counts: np.ndarray
    """int64[classes], examples of each label over all clients."""
    classes: float
    """Mean number of distinct labels of a client."""
    entropy: float
    """Mean entropy of a client's labels."""
    overall: float
    """Entropy of the labels of all clients together; the more ``entropy`` is below it, the more
    skew."""
    shares: np.ndarray
    """float64[groups, classes], each label's share of a client's examples, or its mean over a group
    of clients."""
    grouped: bool
    """Whether ``shares`` has groups, of clients sorted by their most frequent label and its share;
    otherwise it has one row per client, in order."""


def label_spread(data: Population, classes: int, groups: int = 200) -> Spread | None:
    """Counts labels in two passes over ``y``, some clients at a time.

    Args:
      data: a population whose ``y`` is one integer array ``[examples]``.
      classes: number of labels, which lie in ``0 .. classes - 1``.
      groups: most rows of ``shares``; more clients than that are grouped.

    Returns:
      The distribution; ``None`` if ``y`` is no such array, or there are more than
      :data:`MAX_CLASSES` labels.

    Raises:
      FedError: if a label is not in ``0 .. classes - 1``.
    """
    positive("groups", groups)
    y = data.y
    if not isinstance(y, np.ndarray) or y.ndim != 1 or y.dtype.kind not in "iu":
        return None
    if classes > MAX_CLASSES:
        return None
    total = np.zeros(classes, np.int64)
    kinds = 0
    entropies = 0.0
    top = np.zeros(data.clients, np.int64)
    top_share = np.zeros(data.clients)
    for block, counts in _counts(data, y, classes):
        total += counts.sum(0)
        kinds += np.count_nonzero(counts)
        shares = _shares(counts)
        entropies += float(_entropy(shares).sum())
        top[block] = shares.argmax(1)
        top_share[block] = shares.max(1)
    grouped = data.clients > groups
    group = np.arange(data.clients)
    if grouped:
        group[np.lexsort((-top_share, top))] = np.arange(data.clients) * groups // data.clients
    return Spread(
        counts=total,
        classes=kinds / data.clients,
        entropy=entropies / data.clients,
        overall=float(_entropy(_shares(total[None]))[0]),
        shares=_group_means(data, y, classes, group),
        grouped=grouped,
    )


def _group_means(data: Population, y: np.ndarray, classes: int, group: np.ndarray) -> np.ndarray:
    """Returns the mean shares of each group, ``float64[groups, classes]``.

    Args:
      data: the population.
      y: its labels.
      classes: number of labels.
      group: int64[N], each client's group.
    """
    out = np.zeros((int(group.max()) + 1, classes))
    for block, counts in _counts(data, y, classes):
        np.add.at(out, group[block], _shares(counts))
    return out / np.bincount(group)[:, None]


def _counts(data: Population, y: np.ndarray, classes: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields blocks of clients, and the counts of their labels, int64[clients, classes]."""
    step = max(1, ENTRIES // classes)
    for first in range(0, data.clients, step):
        block = slice(first, min(first + step, data.clients))
        sizes = data.sizes[block]
        labels = np.asarray(y[data.offsets[block.start] : data.offsets[block.stop]], np.int64)
        low = labels.min(initial=0)
        high = labels.max(initial=0)
        require(
            0 <= low <= high < classes,
            f"labels lie in 0 .. {classes - 1}",
            got=f"{low} .. {high}",
            fix="pass the number of classes",
        )
        pair = np.repeat(np.arange(len(sizes)) * classes, sizes) + labels
        counts = np.bincount(pair, minlength=len(sizes) * classes)
        yield block, counts.reshape(-1, classes)


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)
