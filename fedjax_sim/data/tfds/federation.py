"""Prepared TensorFlow Datasets as federations, without TensorFlow.

A record holds one example, as in ordinary TFDS data sets, or several, all of one client or each with a client of its own. One record
per client loads some thirty times faster than one per example.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.errors import require
from fedjax_sim.data.federation import Federation, federation, from_partition
from fedjax_sim.data.federation import split as split_clients
from fedjax_sim.data.partition.apply import Partition, deal, is_natural
from fedjax_sim.data.partition.parts import check_same_clients
from fedjax_sim.data.population import Examples, Population, by_client, population
from fedjax_sim.data.tfds.catalogue import CATALOGUE, Convert, Entry
from fedjax_sim.data.tfds.reader import Key, TfdsSet, open_tfds, read_columns

Records = Literal["example", "examples"]


def tfds(
    source: str | Path,
    split: str = "train",
    *,
    test_split: str | None = None,
    global_test_split: str | None = None,
    x_key: Key | None = None,
    label_key: str | None = None,
    client_key: str | None = None,
    records: Records | None = None,
    convert: Convert | None = None,
    partition: Partition = "natural",
    clients: int | None = None,
    test_fraction: float = 0.0,
    seed: int = 0,
    data_dir: str | Path | None = None,
) -> Federation:
    """A federation from a data set that TFDS has prepared, in array_record or parquet files.

    What is not said here comes from :data:`fedjax_sim.data.CATALOGUE` where that knows the data set; elsewhere the keys are ``image``,
    ``label`` and, if there is such a feature, ``client_id``.

    Args:
      source: a folder, or TFDS's name (``"cifar10"``, ``"emnist/byclass"``, ``"mnist:3.0.1"``).
      split: whose examples train; a TFDS expression such as ``"train[:10%]"`` is fine.
      test_split: its examples become the global test set, whoever they belong to. If it has clients of the training split and
        ``test_fraction`` is 0, theirs also become these clients' test examples.
      global_test_split: its examples are the global test set instead.
      x_key: feature that becomes ``x``; several are stacked along a new last axis; ``a/b`` is feature ``b`` of feature ``a``.
      label_key: feature that becomes ``y``.
      client_key: feature that says whose an example is. Clients are ordered by it and named after it.
      records: what one record holds; by default several examples if ``x`` and ``y`` both have a leading axis of any length.
      convert: ``(x, y) -> (x, y)`` on all examples of a split at once, such as scaling of pixels; text and series of unequal length come
        as lists.
      partition: how examples are dealt out; by default as they are, which needs data that say whose each is.
      clients: N, for a partition that does not know by itself.
      test_fraction: share of each training client's examples set apart for testing.
      seed: of the partition and of that split.
      data_dir: where names are looked for; by default ``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``.

    Raises:
      FedError: at once, where the data set, a split, a feature or a file is missing - with the command that prepares it - or the
        files need TensorFlow. The network is never asked.
    """
    data = open_tfds(source, data_dir)
    known = entry(data)
    how = Entry(
        "",
        x_key or known.x,
        label_key or known.y,
        client_key or known.client,
        convert or known.convert,
    )
    train = _read(data, split, how, records)
    held, common = (
        None if name is None else _read(data, name, how, records)
        for name in (test_split, global_test_split)
    )
    central = next((Examples(part.x, part.y) for part in (common, held) if part is not None), None)
    if not is_natural(partition):
        parts = deal(partition, train.y, clients, seed, train.client)
        return from_partition(
            train.x, train.y, parts, test_fraction=test_fraction, global_test=central, seed=seed
        )
    do = "pass client_key=, or partition= and clients=: say, 'dirichlet' and 100"
    require(
        train.client is not None,
        "the data do not say whose an example is",
        got=f"no client_key for {data.name}",
        fix=do,
        setting="partition",
    )
    mine = by_client(train.x, train.y, train.client)
    check_same_clients(clients, mine.clients, "the data's own clients")
    matched = (
        None
        if held is None or test_fraction
        else _matched(by_client(held.x, held.y, held.client), mine)
    )
    return federation(
        *(split_clients(mine, test_fraction, seed) if matched is None else (mine, matched)), central
    )


def entry(data: TfdsSet) -> Entry:
    """How a data set is read where nothing else is said."""
    owned = (
        "client_id" in data.features
    )  # no data set of the catalogue has it: this one only shares a name, and nothing is converted
    guess = Entry("", "image", "label", "client_id" if owned else None)
    known = guess if owned else CATALOGUE.get(data.name, guess)
    return known if known.test in data.builder.info.splits else known._replace(test=None)


class _Rows(NamedTuple):
    """Examples of a split, in the order of the records."""

    x: Any
    y: Any
    client: Any
    """``[n]``, or ``None``."""


def _read(data: TfdsSet, split: str, how: Entry, records: Records | None) -> _Rows:
    x, y, *rest = read_columns(data, split, how.x, how.y, *([how.client] if how.client else []))
    owner = rest[0] if rest else None
    if records == "examples" or (records is None and _several(data, how)):
        sizes = _sizes(x, y, how)
        if owner is not None:
            each = np.shape(owner[0]) != ()
            owner = (
                _joined(owner)
                if each
                else [name for name, size in zip(owner, sizes, strict=True) for _ in range(size)]
            )
        x, y = _joined(x), _joined(y)
    x, y = _stacked(x), _stacked(y)
    x, y = (x, y) if how.convert is None else how.convert(x, y)
    return _Rows(
        _numbers("x", how.x, x),
        _numbers("y", how.y, y),
        None if owner is None else np.asarray(_readable(owner)),
    )


def _several(data: TfdsSet, how: Entry) -> bool:
    first = how.x if isinstance(how.x, str) else how.x[0]
    return all(data.features[name].shape[:1] == (None,) for name in (first, how.y))


def _sizes(x: list[Any], y: list[Any], how: Entry) -> list[int]:
    for one, other in zip(x, y, strict=True):
        lead = np.shape(one)[:1], np.shape(other)[:1]
        require(
            lead[0] == lead[1] != (),
            f"records of several examples need an axis of them, as long for {how.x!r} as for {how.y!r}",
            got=lead,
            fix="pass records='example' for a data set of one record per example",
        )
    return [len(one) for one in x]


def _joined(values: list[Any]) -> Any:
    """The examples of all records, one after another."""
    arrays = all(isinstance(value, np.ndarray) for value in values)
    return np.concatenate(values) if arrays else [each for value in values for each in value]


def _stacked(values: Any) -> Any:
    """An array, where the examples have one shape and are no text."""
    if isinstance(values, np.ndarray) or isinstance(values[0], bytes):
        return values
    return np.stack(values) if len({np.shape(value) for value in values}) == 1 else values


def _numbers(name: str, key: Key, values: Any) -> Any:
    """Leaves as devices hold them: numbers of 32 bits at most."""
    leaves = jax.tree.leaves(values, is_leaf=lambda leaf: isinstance(leaf, list))
    good = all(isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf" for leaf in leaves)
    what = f"{name} must be numbers, of one shape for all examples"
    got = (
        f"feature {key!r} with {'text' if isinstance(values[0], bytes | str) else 'other values'}"
        if not good
        else None
    )
    require(good, what, got=got, fix="pass convert=, which turns (x, y) into arrays")
    narrow = {"i": np.int32, "f": np.float32}
    return jax.tree.map(
        lambda leaf: (
            leaf.astype(narrow[leaf.dtype.kind])
            if leaf.dtype.name in ("int64", "float64")
            else leaf
        ),
        values,
    )


def _readable(names: list[Any]) -> list[Any]:
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def _matched(held: Population, train: Population) -> Population | None:
    """The held examples of training clients, as a test population in their order; ``None`` where no client is known to both."""
    place = {name: i for i, name in enumerate(train.names or ())}
    owner = np.repeat([place.get(name, -1) for name in held.names or ()], held.sizes)
    if not np.any(owner >= 0):
        return None
    order = np.argsort(owner, kind="stable")[np.sum(owner < 0) :]
    sizes = np.bincount(owner[order], minlength=train.clients)
    x, y = jax.tree.map(lambda leaf: leaf[order], (held.x, held.y))
    return population(x, y, np.cumsum([0, *sizes]), train.names, empty=True)
