"""Opens the data set of a task, given by a folder or by its name in TFDS."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.annotations import Seed
from fedjax_sim.core.errors import require
from fedjax_sim.data.federation import Federation, federation, from_partition, split
from fedjax_sim.data.partition.apply import Partition, deal, is_natural
from fedjax_sim.data.partition.parts import check_same_clients
from fedjax_sim.data.population import Population
from fedjax_sim.data.prepared.reader import is_prepared, open_prepared, read_card
from fedjax_sim.data.tfds.federation import entry, tfds
from fedjax_sim.data.tfds.reader import is_tfds, open_tfds


class Loaded(NamedTuple):
    """The data set of a task."""

    data: Federation
    classes: int | None
    """Number of labels; ``None`` if the data do not record it."""


def load(
    source: str | Path,
    prepare: str = "",
    *,
    partition: Partition = "natural",
    clients: int | None = None,
    test_fraction: float = 0.1,
    seed: Seed = 0,
    data_dir: str | None = None,
    **keys: Any,
) -> Loaded:
    """Opens a federation in a folder of `fedjax-sim data prepare`, a TFDS folder, or TFDS itself.

    Args:
      source: the folder, or a name in TFDS.
      prepare: source file of `fedjax-sim data prepare` that the error about a missing folder
        suggests; if it is empty, the error suggests the command of TFDS.
      partition: assigns examples to clients; by default the clients are those of the data.
      clients: number of clients, N, for a partition that does not determine it.
      test_fraction: share of each client's training examples for its own test set, if the data have
        none.
      seed: seed of the partition and of the split.
      data_dir: folder in which names are looked up, see :func:`fedjax_sim.data.tfds`.
      keys: further options of :func:`fedjax_sim.data.tfds`.

    Raises:
      FedError: if the data are absent; the message has the command that prepares them.
    """
    if is_prepared(source):
        data = repartitioned(open_prepared(source), partition, clients, test_fraction, seed)
        return Loaded(data, read_card(source)["classes"])
    if prepare:
        require_tfds(source, prepare)
    options = {
        "partition": partition,
        "clients": clients,
        "test_fraction": test_fraction,
        "seed": seed,
        **keys,
    }
    source_data = open_tfds(source, data_dir)
    known = entry(source_data)
    global_test = "central" if "central" in source_data.builder.info.splits else None
    data = tfds(source_data.folder, test_split=known.test, global_test_split=global_test, **options)
    return Loaded(data, source_data.classes(keys.get("label_key") or known.y))


def require_tfds(folder: str | Path, prepare: str) -> None:
    """Raises FedError unless the folder holds a TFDS data set.

    Args:
      folder: the folder.
      prepare: source file of `fedjax-sim data prepare`, for the command in the message.
    """
    require(
        is_tfds(folder),
        "no prepared data set",
        got=f"nothing in {folder}",
        fix=f"make one with `fedjax-sim data prepare {prepare} --out {folder}`",
        setting="source",
    )


def repartitioned(
    data: Federation, partition: Partition, clients: int | None, test_fraction: float, seed: int
) -> Federation:
    """Returns a federation with the clients of a partition.

    Args:
      data: the federation as it was prepared.
      partition: ``natural`` keeps the clients of ``data`` and gives them test sets if they have
        none; any other partition assigns all training and test examples to new clients.
      clients: number of clients, N; with ``natural``, ``None`` or the number of clients of
        ``data``.
      test_fraction: share of each client's examples for its own test set.
      seed: seed of the partition and of the split.
    """
    if is_natural(partition):
        check_same_clients(clients, data.train.clients, "the data's own clients")
        if data.test is not None or test_fraction == 0:
            return data
        return federation(*split(data.train, test_fraction, seed), data.global_test)
    x, y, ids = _all_examples(data.train, data.test)
    parts = deal(partition, y, clients, seed, ids)
    return from_partition(
        x, y, parts, test_fraction=test_fraction, global_test=data.global_test, seed=seed
    )


def _all_examples(train: Population, test: Population | None) -> tuple[Any, Any, np.ndarray | None]:
    """Returns ``(x, y, ids)``: the examples of all clients, and the name of each one's client."""
    parts = [part for part in (train, test) if part is not None]
    x, y = jax.tree.map(
        lambda *leaves: np.concatenate(leaves), *((part.x, part.y) for part in parts)
    )
    names = np.arange(train.clients) if train.names is None else np.asarray(tuple(train.names))
    return x, y, np.concatenate([np.repeat(names, part.sizes) for part in parts])
