"""From a source to a prepared data set: read, perhaps dealt out anew, split, written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fedjax_sim.core.errors import fail, lookup, positive, require
from fedjax_sim.data.federation import (
    Federation,
    federation,
    from_partition,
    hold_out,
    pool,
    share,
    split,
)
from fedjax_sim.data.partition import REGISTRY as PARTITIONS
from fedjax_sim.data.partition import generator
from fedjax_sim.data.partition.apply import deal
from fedjax_sim.data.population import Examples, Population, population
from fedjax_sim.data.prepared.save import write_blocks
from fedjax_sim.data.prepared.writer import concatenated
from fedjax_sim.data.sources.base import Found
from fedjax_sim.data.sources.options import fitted, keywords
from fedjax_sim.data.sources.registry import choose

Options = Mapping[str, Any]

CENTRAL, TEST = 11, 12
"""Streams of the seed, for splits of blocks."""


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    form: str | None = None,
    options: Options | None = None,
    partition: str | None = None,
    partition_options: Options | None = None,
    clients: int | None = None,
    min_size: int = 1,
    test_fraction: float = 0.0,
    global_test_fraction: float = 0.0,
    seed: int = 0,
    name: str | None = None,
) -> Path:
    """Writes a prepared data set (:func:`fedjax_sim.data.open_prepared`) from another form of it.

    Args:
      source: a path that a reader of :data:`fedjax_sim.data.sources.REGISTRY` knows, or the word ``generated``.
      out: the folder to write; must not exist.
      form: the reader's name, where it cannot be told from the path.
      options: of the reader.
      partition: a name of :data:`fedjax_sim.data.PARTITIONS` that deals out anew what clients have, their test examples included; by
        default the source's own clients are the clients.
      partition_options: of the partition.
      clients: N of a partition or of ``generated``; of the source's own clients, the first so many.
      min_size: clients with fewer training examples are left out.
      test_fraction: share of each client's examples set apart for its test, see :func:`fedjax_sim.data.split`.
      global_test_fraction: share of all examples set apart for a test set that belongs to nobody. With clients of the source's own, the
        share of each client's.
      seed: of partition and splits, and of ``generated``.
      name: of the data set; by default that of the folder.

    Raises:
      FedError: in one sentence, with nothing left behind, for whatever is wrong with the source or the settings.
    """
    out = Path(out).expanduser()
    require(
        not os.path.lexists(out),
        "the folder to prepare must not exist yet",
        got=out,
        fix="remove it or choose another one",
    )
    kind, reader = choose(source, form)
    options, partition_options = dict(options or {}), dict(partition_options or {})
    for label, value in (("clients", clients), ("min_size", min_size)):
        if value is not None:
            positive(label, value)
    for label, value in (
        ("test_fraction", test_fraction),
        ("global_test_fraction", global_test_fraction),
    ):
        share(label, value)
    common = {"clients": clients, "seed": seed}
    asked = {
        **{
            key: value
            for key, value in common.items()
            if value is not None and key in keywords(reader.read)
        },
        **options,
    }
    found = reader.read(
        Path(source).expanduser(), **fitted(reader.read, asked, f"the format {kind}")
    )
    if partition is None:
        blocks = _first(_own(found, source), clients)
        blocks = (
            _split(block, number, global_test_fraction, test_fraction, seed)
            for number, block in enumerate(blocks)
        )
    else:
        bound = _bound(partition, partition_options)
        blocks = [_dealt(found, bound, clients, test_fraction, global_test_fraction, seed)]
    made = {
        "format": kind,
        "options": options,
        "partition": partition,
        "partition_options": partition_options,
    }
    made |= {
        "clients": clients,
        "min_size": min_size,
        "test_fraction": test_fraction,
        "global_test_fraction": global_test_fraction,
        "seed": seed,
    }
    kept = (block for block in (_large(block, min_size) for block in blocks) if block is not None)
    about = {**found.about, "made": made}
    return write_blocks(
        kept, out, name=name or out.name, source=str(source), classes=found.classes, about=about
    )


def _bound(name: str, options: Options) -> Callable[..., Any]:
    """A partition with its options."""
    made = lookup("partition", name, PARTITIONS)
    require(
        "seed" not in options,
        "a partition has the seed of the data set",
        got=f"seed={options.get('seed')}",
        fix="use --seed instead",
    )
    return partial(made, **fitted(made, options, f"the partition {name}"))


def _own(found: Found, source: str | Path) -> Iterable[Federation]:
    if found.blocks is None:
        do = "name what says so, or deal the examples out, with --partition dirichlet alpha=0.1 --clients 100 for example"
        fail("the source does not say whose an example is", got=source, fix=do)
    return found.blocks


def _first(blocks: Iterable[Federation], clients: int | None) -> Iterator[Federation]:
    """The first so many clients. Nothing more is read."""
    left = clients
    for block in blocks:
        yield (
            block
            if left is None or block.train.clients <= left
            else _chosen(block, np.arange(block.train.clients) < left)
        )
        left = None if left is None else left - block.train.clients
        if left is not None and left <= 0:
            return


def _large(block: Federation, size: int) -> Federation | None:
    """The clients with so many examples; ``None`` where there are none."""
    keep = block.train.sizes >= size
    return block if keep.all() else _chosen(block, keep) if keep.any() else None


def _chosen(block: Federation, keep: np.ndarray) -> Federation:
    return federation(
        _clients(block.train, keep),
        None if block.test is None else _clients(block.test, keep),
        block.global_test,
    )


def _clients(data: Population, keep: np.ndarray) -> Population:
    rows = np.repeat(keep, data.sizes)
    x, y = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], (data.x, data.y))
    names = (
        None
        if data.names is None
        else tuple(name for name, kept in zip(data.names, keep, strict=True) if kept)
    )
    return population(x, y, np.cumsum([0, *data.sizes[keep]]), names, empty=True)


def _split(
    block: Federation, number: int, global_test_fraction: float, test_fraction: float, seed: int
) -> Federation:
    """A block with shares of each of its clients set apart."""
    train, test, central = block
    if global_test_fraction or test_fraction:
        _splittable(train)
    if global_test_fraction:
        _absent("central", central)
        train, held = split(train, global_test_fraction, _seed(seed, CENTRAL, number))
        central = pool(held)
    if test_fraction:
        _absent("test", test)
        train, test = split(
            train, test_fraction, seed if number == 0 else _seed(seed, TEST, number)
        )
    return federation(train, test, central)


def _dealt(
    found: Found,
    partition: Callable[..., Any],
    clients: int | None,
    test_fraction: float,
    global_test_fraction: float,
    seed: int,
) -> Federation:
    """All examples in the hands of new clients."""
    examples, central, ids = (
        (found.examples, found.global_test, None)
        if found.examples is not None
        else _pooled(found.blocks or ())
    )
    _splittable(examples)
    if global_test_fraction:
        _absent("central", central)
        owners = np.zeros(len(examples), np.int64) if ids is None else ids
        rest, held = hold_out((examples.x, owners), examples.y, global_test_fraction, seed)
        examples, central = (Examples(part.x[0], part.y) for part in (rest, held))
        ids = None if ids is None else rest.x[1]
    parts = deal(partition, examples.y, clients, seed, ids)
    return from_partition(
        examples.x, examples.y, parts, test_fraction=test_fraction, global_test=central, seed=seed
    )


def _pooled(blocks: Iterable[Federation]) -> tuple[Examples, Examples | None, np.ndarray]:
    """All clients' examples, the central ones, and whose each is: the client's number."""
    held, central, owners, first = [], [], [], 0
    for block in blocks:
        for part in (block.train, block.test):
            if part is not None:
                held.append((part.x, part.y))
                owners.append(np.repeat(np.arange(first, first + part.clients), part.sizes))
        central += [] if block.global_test is None else [tuple(block.global_test)]
        first += block.train.clients
    ids = np.concatenate(owners)
    return Examples(*_joined(held)), Examples(*_joined(central)) if central else None, ids


def _joined(trees: list[Any]) -> Any:
    return concatenated(trees) if len(trees) > 1 else trees[0]  # which may be large, and mapped


def _splittable(data: Population | Examples) -> None:
    text = "examples without labels, as the characters of a text are"
    do = "leave out the partition and the fractions; a task splits its windows of the text"
    require(
        bool(jax.tree.leaves(data.y)),
        "only labelled examples can be dealt out or split",
        got=text,
        fix=do,
    )


def _absent(part: str, held: Any) -> None:
    what = f"the source has {part} examples already"
    require(
        held is None,
        what,
        got=f"{part}_fraction",
        fix=f"leave --{part}-fraction out, or prepare the source without them",
    )


def _seed(seed: int, *stream: int) -> int:
    return int(generator(seed, *stream).integers(2**31))
