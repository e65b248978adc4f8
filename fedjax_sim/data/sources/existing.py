"""Readers of prepared data sets: folders of this package, to be partitioned or split again, and
folders of TFDS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.data.federation import pool
from fedjax_sim.data.partition import Parts
from fedjax_sim.data.prepared.reader import is_prepared, open_prepared, read_card
from fedjax_sim.data.sources.base import SourceData
from fedjax_sim.data.tfds.federation import entry, tfds
from fedjax_sim.data.tfds.reader import is_tfds, open_tfds


def matches_prepared(path: Path) -> bool:
    """Whether the path is a folder that `fedjax-sim data prepare` wrote."""
    return is_prepared(path)


def read_prepared(path: Path) -> SourceData:
    """Reads a folder that `fedjax-sim data prepare` wrote, with its clients.

    Args:
      path: the folder.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.data.sources.existing import read_prepared
      >>> data = fs.tasks.synthetic(clients=3).data
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = fs.data.save(data, f"{folder}/mine", name="mine", classes=10)
      ...     source = read_prepared(Path(path))
      >>> [block.train.clients for block in source.blocks], source.classes
      ([3], 10)
    """
    data = open_prepared(path)
    card = read_card(path)
    return SourceData([data], classes=card["classes"], about=card["about"])


def matches_tfds(path: Path) -> bool:
    """Whether the path is a folder with a ``dataset_info.json`` in or below it."""
    return is_tfds(path)


def read_tfds(
    path: Path,
    *,
    split: str = "train",
    test_split: str = "",
    global_test_split: str = "",
    x: str = "",
    y: str = "",
    client: str = "",
) -> SourceData:
    """Reads a data set that TFDS prepared, in array_record or parquet files.

    :func:`fedjax_sim.data.tfds` does the reading and describes how fields are selected.

    Args:
      path: the folder.
      split: split with the training examples.
      test_split: split with the test examples of clients, or with the global test set; by default
        ``test``, if it exists.
      global_test_split: split with the global test set; by default ``central``, if it exists.
      x: feature that becomes ``x``.
      y: feature that becomes ``y``.
      client: feature with the owner of each example.
    """
    data = open_tfds(path)
    known = entry(data)
    splits = data.builder.info.splits
    keys: dict[str, Any] = {
        "x_key": x or None,
        "label_key": y or None,
        "client_key": client or None,
    }
    test_splits: dict[str, Any] = {
        "test_split": test_split or known.test,
        "global_test_split": global_test_split or ("central" if "central" in splits else None),
    }
    natural = bool(client or known.client)
    federation = tfds(
        data.folder,
        split,
        partition="natural" if natural else _all_to_one,
        clients=None if natural else 1,
        **test_splits,
        **keys,
    )
    classes = data.classes(y or known.y)
    if natural:
        return SourceData([federation], classes=classes)
    return SourceData(
        examples=pool(federation.train), global_test=federation.global_test, classes=classes
    )


def _all_to_one(labels: np.ndarray, clients: int, *, seed: int) -> Parts:
    """Assigns all examples, in their order, to one client; a partition is applied later."""
    return [np.arange(len(labels))]
