"""Label skew by sorting: the examples in the order of their labels, cut into shards."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedjax_sim.core.errors import fraction, require
from fedjax_sim.data.partition.parts import (
    Parts,
    column,
    consecutive,
    count,
    enough,
    even,
    generator,
    mixed,
    pools,
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
    """The FedAvg paper's pathological split: rows sorted by label, cut into shards, a few random shards for each client.

    Args:
      labels: ``[n]``, any dtype that sorts.
      clients: N.
      per_client: shards each client gets; ``None`` deals all shards of ``shard_size`` out, the first clients getting one more.
      shard_size: rows in a shard. Without it the N * per_client shards hold every row and differ by one row at most; with it,
        rows and shards that are left over belong to nobody.
      keep_incomplete: use the last shard though it is short; only with ``shard_size``.
      seed: of the deal.
      shuffle: mix each client's rows at the end, instead of shard after shard.

    Raises:
      FedError: where there are fewer shards than the clients need.

    Reference: McMahan et al., arXiv 1602.05629, section 3 (200 shards of 300, two for each of 100 clients).
    """
    if per_client is not None:
        count("per_client", per_client)
    enough(len(labels), clients, per_client or 1)
    pieces = _cut(
        np.concatenate(pools(labels)[1]), clients, per_client, shard_size, keep_incomplete
    )
    used = len(pieces) if per_client is None else clients * per_client
    good = clients <= used <= len(pieces)
    got = f"{len(pieces)} for {clients} clients"
    require(
        good,
        "too few shards for the clients",
        got=got,
        fix="use smaller shards or fewer clients",
        setting="clients",
    )
    rng = generator(seed)
    return mixed(rng, _deal(rng, pieces, clients, used), shuffle)


def similarity(
    labels: Any,
    clients: int,
    *,
    share: float = 0.1,
    per_client: int = 1,
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """A share of every client's examples is iid, the rest is label after label: SCAFFOLD's s % similarity, or percentage non-iid.

    ``round(share * n)`` random examples are dealt evenly. The others are sorted by label and cut into N * per_client even shards, of which
    each client gets ``per_client`` by chance: with one, as in the paper, a block of the sorted examples.

    Args:
      labels: ``[n]``, any dtype that sorts.
      clients: N.
      share: s, from 0 (shards only) to 1 (iid).
      per_client: shards of sorted examples each client gets.
      seed: of all draws.
      shuffle: mix each client's rows at the end, instead of leaving those that are iid in front.

    Raises:
      FedError: where the sorted examples are too few for the shards, and not none.

    Reference: Karimireddy et al., "SCAFFOLD", arXiv 1910.06378, section 7.
    """
    labels = column(labels, "labels")
    fraction("share", share, zero=True)
    count("per_client", per_client)
    enough(len(labels), clients)
    rng = generator(seed)
    drawn = rng.permutation(len(labels))
    number = round(share * len(labels))
    same, rest = drawn[:number], np.sort(drawn[number:])
    need = clients * per_client
    what = f"the sorted examples must make {need} shards for {clients} clients"
    require(
        not len(rest) or len(rest) >= need,
        what,
        got=f"{len(rest)} examples",
        fix="lower share or clients, or use the iid partition",
        setting="share",
    )
    hands = consecutive(same, even(len(same), clients))
    if len(rest):
        order = rest[np.concatenate(pools(labels[rest])[1])]
        pieces = _deal(rng, consecutive(order, even(len(order), need)), clients, need)
        hands = [np.concatenate(both) for both in zip(hands, pieces, strict=True)]
    return mixed(rng, hands, shuffle)


def _cut(
    order: np.ndarray, clients: int, per_client: int | None, size: int | None, keep: bool
) -> Parts:
    """The sorted rows as shards, all of them that may be dealt."""
    if size is None:
        require(
            per_client is not None,
            "shards need a number or a size",
            got="neither",
            fix="give per_client or shard_size",
        )
        return consecutive(order, even(len(order), clients * (per_client or 1)))
    count("shard_size", size)
    stop = len(order) if keep else len(order) // size * size
    return [order[start : start + size] for start in range(0, stop, size)]


def _deal(rng: np.random.Generator, pieces: Parts, clients: int, used: int) -> Parts:
    chosen = rng.permutation(len(pieces))[:used]
    return [
        np.concatenate([pieces[shard] for shard in hand])
        for hand in np.array_split(chosen, clients)
    ]
