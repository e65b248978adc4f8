"""Writes folders of TensorFlow Datasets: one record per client, in array_record files.

Reading them needs no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.core.errors import require
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.population import Examples, Population
from fedjax_sim.data.prepared.columns import fresh_folder, saving


def save_tfds(
    data: Federation, out: str | Path, *, name: str, x_key: str = "image", label_key: str = "label"
) -> Path:
    """Writes a federation for other programs that read TFDS.

    This package opens its own format (:func:`fedjax_sim.data.save`) much faster. Splits are
    ``train``, ``test`` (test examples of the clients that have any) and ``central`` (the global
    test set, as one record of a client called ``central``). Read it with ``tfds(out,
    test_split="test")``.

    Args:
      data: a federation; ``x`` and ``y`` are one array each, ``[examples, ...]``.
      out: the folder to write; must not exist. It is complete or absent: an error leaves nothing
        behind.
      name: name of the data set.
      x_key: name of the feature with the examples.
      label_key: name of the feature with the labels.

    Returns:
      The folder.

    Raises:
      FedError: if ``x`` or ``y`` is not one array, ``out`` exists, or it cannot be written.
    """
    require(
        isinstance(data.train.x, np.ndarray) and isinstance(data.train.y, np.ndarray),
        "a TFDS record holds one array of examples and one of labels",
        got="several or none",
        fix="save it with fedjax_sim.data.save",
    )
    parts = {
        "train": data.train,
        "test": data.test,
        "central": data.global_test and _one_client(data.global_test),
    }
    import tensorflow_datasets as tfds  # a second or two
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    def tensor(leaf: Any) -> Any:
        return tfds.features.Tensor(
            shape=(None, *leaf.shape[1:]), dtype=leaf.dtype, encoding="bytes"
        )

    features = {
        "client_id": tfds.features.Text(),
        x_key: tensor(data.train.x),
        label_key: tensor(data.train.y),
    }
    out = Path(out).expanduser()
    with fresh_folder(out) as part, saving(out):
        identity = DatasetIdentity(name, tfds.core.Version("1.0.0"), str(part), "fedjax_sim")
        info = tfds.core.DatasetInfo(
            builder=identity, features=tfds.features.FeaturesDict(features)
        )
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=100_000, file_format="array_record"
        )
        writer.initialize_splits([split for split, clients in parts.items() if clients is not None])
        for split, clients in parts.items():
            if clients is not None:
                writer.add_examples({split: list(_records(clients, x_key, label_key))})
        writer.close_all()
    return out


def _one_client(examples: Examples) -> Population:
    return Population(examples.x, examples.y, np.array([0, len(examples)]), ("central",))


def _records(data: Population, x_key: str, label_key: str) -> Iterator[dict[str, Any]]:
    names = map(str, range(data.clients)) if data.names is None else data.names
    for name, start, stop in zip(names, data.offsets[:-1], data.offsets[1:], strict=True):
        if stop > start:
            yield {"client_id": name, x_key: data.x[start:stop], label_key: data.y[start:stop]}
