"""What is a data set already: a folder of this package's own form, to be partitioned or split again, or one of TFDS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.data.federation import pool
from fedjax_sim.data.partition import Parts
from fedjax_sim.data.prepared.reader import is_prepared, open_prepared, read_card
from fedjax_sim.data.sources.base import Found
from fedjax_sim.data.tfds.federation import entry, tfds
from fedjax_sim.data.tfds.reader import is_tfds, open_tfds


def matches_prepared(path: Path) -> bool:
    """A folder that `fedjax-sim data prepare` wrote."""
    return is_prepared(path)


def read_prepared(path: Path) -> Found:
    """The clients that are in it.

    Args:
      path: the folder.
    """
    data, card = open_prepared(path), read_card(path)
    return Found([data], classes=card["classes"], about=card["about"])


def matches_tfds(path: Path) -> bool:
    """A folder with a ``dataset_info.json`` in or below it."""
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
) -> Found:
    """A prepared data set of TFDS, in array_record or parquet files. See :func:`fedjax_sim.data.tfds`, which reads it.

    Args:
      path: the folder.
      split: whose examples train.
      test_split: the clients' test examples, and the global test set; by default ``test``, if there is such a split.
      global_test_split: the global test set instead; by default ``central``, if there is such a split.
      x: feature that becomes ``x``.
      y: feature that becomes ``y``.
      client: feature that says whose an example is.
    """
    data = open_tfds(path)
    known, splits = entry(data), data.builder.info.splits
    keys: dict[str, Any] = {
        "x_key": x or None,
        "label_key": y or None,
        "client_key": client or None,
    }
    held: dict[str, Any] = {
        "test_split": test_split or known.test,
        "global_test_split": global_test_split or ("central" if "central" in splits else None),
    }
    natural = bool(client or known.client)
    found = tfds(
        data.folder,
        split,
        partition="natural" if natural else _all_to_one,
        clients=None if natural else 1,
        **held,
        **keys,
    )
    classes = data.classes(y or known.y)
    return (
        Found([found], classes=classes)
        if natural
        else Found(examples=pool(found.train), global_test=found.global_test, classes=classes)
    )


def _all_to_one(labels: np.ndarray, clients: int, *, seed: int) -> Parts:
    """The examples in their order: it is not decided yet whose they will be."""
    return [np.arange(len(labels))]
