"""Data sets that lie in a folder or under a TFDS name, and how tasks open them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.errors import require
from fedjax_sim.data.federation import Federation, federation, from_partition, split
from fedjax_sim.data.partition.apply import Partition, deal, is_natural
from fedjax_sim.data.partition.parts import check_same_clients
from fedjax_sim.data.population import Population
from fedjax_sim.data.prepared.reader import is_prepared, open_prepared, read_card
from fedjax_sim.data.tfds.federation import entry, tfds
from fedjax_sim.data.tfds.reader import is_tfds, open_tfds


class Loaded(NamedTuple):
    """A data set of a task."""

    data: Federation
    classes: int | None
    """How many labels there are, where the data say so."""


def load(
    source: str | Path,
    prepare: str = "",
    *,
    partition: Partition = "natural",
    clients: int | None = None,
    test_fraction: float = 0.1,
    seed: int = 0,
    data_dir: str | None = None,
    **keys: Any,
) -> Loaded:
    """A federation from whatever is there: a folder of `fedjax-sim data prepare`, a TFDS folder, or a data set that TFDS has by name.

    Args:
      source: the folder or the name.
      prepare: the source file of `fedjax-sim data prepare`, which a missing folder's error suggests; without one, TFDS's command is.
      partition: how examples are dealt out; by default as they are in the data.
      clients: N, for a partition that does not know by itself.
      test_fraction: share of each client's training examples for its own test, where it has none in the data.
      seed: of the partition and the split.
      data_dir: where names are looked for, see :func:`fedjax_sim.data.tfds`.
      keys: more for :func:`fedjax_sim.data.tfds`.
    """
    if is_prepared(source):
        data = arranged(open_prepared(source), partition, clients, test_fraction, seed)
        return Loaded(data, read_card(source)["classes"])
    if prepare:
        need(source, prepare)
    options = {
        "partition": partition,
        "clients": clients,
        "test_fraction": test_fraction,
        "seed": seed,
        **keys,
    }
    found = open_tfds(source, data_dir)
    known = entry(found)
    central = "central" if "central" in found.builder.info.splits else None
    data = tfds(found.folder, test_split=known.test, global_test_split=central, **options)
    return Loaded(data, found.classes(keys.get("label_key") or known.y))


def need(folder: str | Path, prepare: str) -> None:
    """Requires a TFDS data set in a folder, or else tells how to make a prepared one of a source file."""
    do = f"make one with `fedjax-sim data prepare {prepare} --out {folder}`"
    require(
        is_tfds(folder),
        "no prepared data set",
        got=f"nothing in {folder}",
        fix=do,
        setting="source",
    )


def arranged(
    data: Federation, partition: Partition, clients: int | None, test_fraction: float, seed: int
) -> Federation:
    """A federation with test examples for its clients, or all its clients' examples dealt out anew."""
    if is_natural(partition):
        check_same_clients(clients, data.train.clients, "the data's own clients")
        whole = data.test is not None or test_fraction == 0
        return (
            data if whole else federation(*split(data.train, test_fraction, seed), data.global_test)
        )
    x, y, ids = _together(data.train, data.test)
    parts = deal(partition, y, clients, seed, ids)
    return from_partition(
        x, y, parts, test_fraction=test_fraction, global_test=data.global_test, seed=seed
    )


def _together(train: Population, test: Population | None) -> tuple[Any, Any, np.ndarray | None]:
    """All clients' examples, and whose each is."""
    parts = [part for part in (train, test) if part is not None]
    x, y = jax.tree.map(
        lambda *leaves: np.concatenate(leaves), *((part.x, part.y) for part in parts)
    )
    names = np.arange(train.clients) if train.names is None else np.asarray(tuple(train.names))
    return x, y, np.concatenate([np.repeat(names, part.sizes) for part in parts])
