"""Conversion of a source to a prepared data set: read, partition if asked, split, write."""

from __future__ import annotations

import itertools
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
from fedjax_sim.data.sources.base import SourceData
from fedjax_sim.data.sources.options import convert_options, keywords
from fedjax_sim.data.sources.registry import Reader, choose

Options = Mapping[str, Any]

GLOBAL_TEST = 11
"""Stream of the seed that splits the global test set from each block."""
TEST = 12
"""Stream of the seed that splits the test sets of clients from all blocks but the first."""


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
    """Writes a prepared data set (:func:`fedjax_sim.data.open_prepared`) from a source.

    Args:
      source: a path that a reader of :data:`fedjax_sim.data.sources.REGISTRY` accepts, or the word
        ``generated``.
      out: the folder to write; it must not exist.
      form: name of the reader; by default the first that accepts the path.
      options: options of the reader.
      partition: name of an entry of :data:`fedjax_sim.data.PARTITIONS` that assigns all examples,
        with the clients' test examples, to new clients; by default the clients are those of the
        source.
      partition_options: options of the partition.
      clients: N of the partition or of ``generated``; with the source's clients, the number of
        clients to keep, from the first.
      min_size: clients with fewer training examples are left out.
      test_fraction: share of each client's examples for its own test set, see
        :func:`fedjax_sim.data.split`.
      global_test_fraction: share of all examples for the global test set; with the source's
        clients, the share of each client's examples.
      seed: seed of the partition and of the splits, and of ``generated``.
      name: name of the data set; by default that of the folder.

    Returns:
      The path of the folder.

    Raises:
      FedError: if the source or a setting is wrong; no file is left.

    Example:
      >>> import tempfile
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.data.sources import prepare
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     options = {"examples": 6, "shape": [2]}
      ...     path = prepare("generated", f"{folder}/out", clients=4, options=options)
      ...     data = fs.data.open_prepared(path)
      >>> data.train.sizes.tolist()
      [6, 6, 6, 6]
    """
    out = Path(out).expanduser()
    require(
        not os.path.lexists(out),
        "the folder to prepare must not exist yet",
        got=out,
        fix="remove it or choose another one",
    )
    kind, reader = choose(source, form)
    for label, value in (("clients", clients), ("min_size", min_size)):
        if value is not None:
            positive(label, value)
    share("test_fraction", test_fraction)
    share("global_test_fraction", global_test_fraction)
    made = {
        "format": kind,
        "options": dict(options or {}),
        "partition": partition,
        "partition_options": dict(partition_options or {}),
        "clients": clients,
        "min_size": min_size,
        "test_fraction": test_fraction,
        "global_test_fraction": global_test_fraction,
        "seed": seed,
    }
    data = _read(reader, kind, source, made["options"], {"clients": clients, "seed": seed})
    if partition is None:
        blocks = (
            _split(block, number, global_test_fraction, test_fraction, seed)
            for number, block in enumerate(_first_clients(_client_blocks(data, source), clients))
        )
    else:
        bound = _bound(partition, made["partition_options"])
        blocks = [_partitioned(data, bound, clients, test_fraction, global_test_fraction, seed)]
    large = (_large_clients(block, min_size) for block in blocks)
    return write_blocks(
        (block for block in large if block is not None),
        out,
        name=name or out.name,
        source=str(source),
        classes=data.classes,
        about={**data.about, "made": made},
    )


def _read(
    reader: Reader, kind: str, source: str | Path, options: Options, common: Options
) -> SourceData:
    """Reads a source.

    Args:
      reader: the reader.
      kind: its name, for the message.
      source: the path.
      options: options of the reader.
      common: settings of the whole conversion, for readers that have options of these names.
    """
    known = keywords(reader.read)
    shared = {key: value for key, value in common.items() if value is not None and key in known}
    converted = convert_options(reader.read, {**shared, **options}, f"the format {kind}")
    return reader.read(Path(source).expanduser(), **converted)


def _bound(name: str, options: Options) -> Callable[..., Any]:
    """Returns a partition with its options bound."""
    partition = lookup("partition", name, PARTITIONS).factory
    require(
        "seed" not in options,
        "a partition has the seed of the data set",
        got=f"seed={options.get('seed')}",
        fix="use --seed instead",
        setting="seed",
    )
    return partial(partition, **convert_options(partition, options, f"the partition {name}"))


def _client_blocks(data: SourceData, source: str | Path) -> Iterable[Federation]:
    if data.blocks is None:
        fail(
            "the source does not record the owner of each example",
            got=source,
            fix="name the field of the owners, or partition the examples, for example with "
            "--partition dirichlet alpha=0.1 --clients 100",
        )
    return data.blocks


def _first_clients(blocks: Iterable[Federation], clients: int | None) -> Iterator[Federation]:
    """Yields the first ``clients`` clients, or all for ``None``; reads no further blocks."""
    left = clients
    for block in blocks:
        yield (
            block
            if left is None or block.train.clients <= left
            else _selected(block, np.arange(block.train.clients) < left)
        )
        left = None if left is None else left - block.train.clients
        if left is not None and left <= 0:
            return


def _large_clients(block: Federation, size: int) -> Federation | None:
    """Returns the clients with at least ``size`` examples; ``None`` if there are none."""
    keep = block.train.sizes >= size
    if keep.all():
        return block
    return _selected(block, keep) if keep.any() else None


def _selected(block: Federation, keep: np.ndarray) -> Federation:
    """Returns the clients for which ``keep``, bool ``[clients]``, is True."""
    return federation(
        _selected_clients(block.train, keep),
        None if block.test is None else _selected_clients(block.test, keep),
        block.global_test,
    )


def _selected_clients(data: Population, keep: np.ndarray) -> Population:
    rows = np.repeat(keep, data.sizes)
    x, y = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], (data.x, data.y))
    names = None if data.names is None else tuple(itertools.compress(data.names, keep))
    return population(x, y, np.cumsum([0, *data.sizes[keep]]), names, empty=True)


def _split(
    block: Federation, number: int, global_test_fraction: float, test_fraction: float, seed: int
) -> Federation:
    """Splits test examples from each client of a block.

    Args:
      block: clients of the source.
      number: index of the block, from which the seed of its splits is derived.
      global_test_fraction: share of each client's examples for the global test set.
      test_fraction: share of the remaining examples of each client for its own test set.
      seed: seed of the conversion.
    """
    train, test, global_test = block
    if global_test_fraction or test_fraction:
        _require_labels(train)
    if global_test_fraction:
        _require_absent("global_test", global_test)
        train, held_out = split(train, global_test_fraction, _seed(seed, GLOBAL_TEST, number))
        global_test = pool(held_out)
    if test_fraction:
        _require_absent("test", test)
        block_seed = seed if number == 0 else _seed(seed, TEST, number)
        train, test = split(train, test_fraction, block_seed)
    return federation(train, test, global_test)


def _partitioned(
    data: SourceData,
    partition: Callable[..., Any],
    clients: int | None,
    test_fraction: float,
    global_test_fraction: float,
    seed: int,
) -> Federation:
    """Assigns all examples of a source to new clients.

    Args:
      data: the source.
      partition: the partition, with its options bound.
      clients: N.
      test_fraction: share of each new client's examples for its own test set.
      global_test_fraction: share of all examples for the global test set.
      seed: seed of the partition and of the splits.
    """
    if data.examples is None:
        examples, global_test, ids = _pooled(data.blocks or ())
    else:
        examples = data.examples
        global_test = data.global_test
        ids = None
    _require_labels(examples)
    if global_test_fraction:
        _require_absent("global_test", global_test)
        owners = np.zeros(len(examples), np.int64) if ids is None else ids
        rest, held_out = hold_out((examples.x, owners), examples.y, global_test_fraction, seed)
        examples = Examples(rest.x[0], rest.y)
        global_test = Examples(held_out.x[0], held_out.y)
        ids = None if ids is None else rest.x[1]
    parts = deal(partition, examples.y, clients, seed, ids)
    return from_partition(
        examples.x,
        examples.y,
        parts,
        test_fraction=test_fraction,
        global_test=global_test,
        seed=seed,
    )


def _pooled(blocks: Iterable[Federation]) -> tuple[Examples, Examples | None, np.ndarray]:
    """Returns the examples of all clients, the global test set, and each example's client number.

    The examples of clients include their test examples.
    """
    examples: list[Any] = []
    global_test: list[Any] = []
    owners: list[np.ndarray] = []
    first = 0
    for block in blocks:
        for part in (block.train, block.test):
            if part is not None:
                examples.append((part.x, part.y))
                owners.append(np.repeat(np.arange(first, first + part.clients), part.sizes))
        global_test += [] if block.global_test is None else [tuple(block.global_test)]
        first += block.train.clients
    ids = np.concatenate(owners)
    pooled_test = Examples(*_joined(global_test)) if global_test else None
    return Examples(*_joined(examples)), pooled_test, ids


def _joined(trees: list[Any]) -> Any:
    # A single tree is not copied: it may be large and memory-mapped.
    return concatenated(trees) if len(trees) > 1 else trees[0]


def _require_labels(data: Population | Examples) -> None:
    require(
        bool(jax.tree.leaves(data.y)),
        "only labelled examples can be partitioned or split",
        got="examples without labels, such as the characters of a text",
        fix="leave out the partition and the fractions; a task splits its windows of the text",
    )


def _require_absent(part: str, examples: Any) -> None:
    require(
        examples is None,
        f"the source has {part} examples already",
        got=f"{part}_fraction",
        fix=f"leave --{part.replace('_', '-')}-fraction out, or prepare the source without them",
        setting=f"{part}_fraction",
    )


def _seed(seed: int, *stream: int) -> int:
    return int(generator(seed, *stream).integers(2**31))
