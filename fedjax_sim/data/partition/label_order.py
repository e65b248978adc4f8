"""Label skew by sorting: the examples are sorted by label and cut into shards."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedjax_sim.core.errors import fraction, require
from fedjax_sim.data.partition.parts import (
    Parts,
    check_clients,
    check_whole,
    consecutive,
    even_sizes,
    generator,
    rows_by_value,
    shuffled,
    vector,
)


def shards(
    labels: Any,
    clients: int,
    *,
    per_client: int | None = 2,
    shard_size: int | None = None,
    keep_incomplete: bool = False,
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """The FedAvg paper's pathological split: sorted rows are cut into shards, assigned at random.

    Args:
      labels: ``[n]``, any dtype that sorts.
      clients: number of clients, N.
      per_client: shards that each client gets; ``None`` assigns all shards of ``shard_size`` rows,
        one more to the first clients where their number is no multiple of N.
      shard_size: rows in a shard. Without it the N * per_client shards hold every row and differ by
        at most one row; with it, remaining rows and shards are left out.
      keep_incomplete: use the last shard although it is short; only with ``shard_size``.
      seed: of the assignment of shards.
      shuffle: shuffle each client's rows at the end, instead of leaving them shard after shard.

    Returns:
      N arrays of row numbers, ``int64[n_i]``.

    Raises:
      FedError: if there are fewer shards than the clients need.

    Reference: McMahan et al., arXiv 1602.05629, section 3 (200 shards of 300, two for each of 100
    clients).

    Example:
      >>> import fedjax_sim as fs
      >>> labels = [0, 1, 2, 3] * 6
      >>> parts = fs.data.shards(labels, 4, per_client=1)
      >>> [sorted({labels[row] for row in part}) for part in parts]
      [[2], [0], [1], [3]]
    """
    if per_client is not None:
        check_whole("per_client", per_client)
    check_clients(len(labels), clients, per_client or 1)
    _, rows = rows_by_value(labels)
    pieces = _cut(np.concatenate(rows), clients, per_client, shard_size, keep_incomplete)
    used = len(pieces) if per_client is None else clients * per_client
    require(
        clients <= used <= len(pieces),
        "too few shards for the clients",
        got=f"{len(pieces)} for {clients} clients",
        fix="use smaller shards or fewer clients",
        setting="clients",
    )
    rng = generator(seed)
    return shuffled(rng, _assign(rng, pieces, clients, used), shuffle)


def similarity(
    labels: Any,
    clients: int,
    *,
    share: float = 0.1,
    per_client: int = 1,
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """SCAFFOLD's s % similarity: a share of every client's examples is iid, the rest sorted by
    label.

    ``round(share * n)`` random examples are divided evenly. The other examples are sorted by label
    and cut into N * per_client shards whose sizes differ by at most one; each client gets
    ``per_client`` random shards. With ``per_client=1``, as in the paper, that is one block of the
    sorted examples.

    Args:
      labels: ``[n]``, any dtype that sorts.
      clients: number of clients, N.
      share: s, from 0 (shards only) to 1 (iid).
      per_client: shards of sorted examples that each client gets.
      seed: of all draws.
      shuffle: shuffle each client's rows at the end, instead of leaving the iid rows first.

    Returns:
      N arrays of row numbers, ``int64[n_i]``; every row is in one of them.

    Raises:
      FedError: if there are sorted examples, but fewer than shards.

    Reference: Karimireddy et al., "SCAFFOLD", arXiv 1910.06378, section 7.

    Example:
      >>> import fedjax_sim as fs
      >>> labels = [0, 1] * 50
      >>> parts = fs.data.similarity(labels, 2, share=0.2)
      >>> [sum(labels[row] for row in part) for part in parts]
      [42, 8]
    """
    labels = vector(labels, "labels")
    fraction("share", share, zero=True)
    check_whole("per_client", per_client)
    check_clients(len(labels), clients)
    rng = generator(seed)
    drawn = rng.permutation(len(labels))
    number = round(share * len(labels))
    same = drawn[:number]
    rest = np.sort(drawn[number:])
    needed = clients * per_client
    require(
        not len(rest) or len(rest) >= needed,
        f"the sorted examples must make {needed} shards for {clients} clients",
        got=f"{len(rest)} examples",
        fix="lower share or clients, or use the iid partition",
        setting="share",
    )
    parts = consecutive(same, even_sizes(len(same), clients))
    if len(rest):
        _, groups = rows_by_value(labels[rest])
        shards = consecutive(rest[np.concatenate(groups)], even_sizes(len(rest), needed))
        blocks = _assign(rng, shards, clients, needed)
        parts = [np.concatenate(both) for both in zip(parts, blocks, strict=True)]
    return shuffled(rng, parts, shuffle)


def _cut(
    order: np.ndarray, clients: int, per_client: int | None, size: int | None, keep: bool
) -> Parts:
    if size is None:
        require(
            per_client is not None,
            "shards need a number or a size",
            got="neither",
            fix="give per_client or shard_size",
            setting="per_client",
        )
        return consecutive(order, even_sizes(len(order), clients * (per_client or 1)))
    check_whole("shard_size", size)
    stop = len(order) if keep else len(order) // size * size
    return [order[start : start + size] for start in range(0, stop, size)]


def _assign(rng: np.random.Generator, pieces: Parts, clients: int, used: int) -> Parts:
    chosen = rng.permutation(len(pieces))[:used]
    return [
        np.concatenate([pieces[shard] for shard in group])
        for group in np.array_split(chosen, clients)
    ]
