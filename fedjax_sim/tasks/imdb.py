"""IMDB's film reviews from TFDS: positive or negative."""

from __future__ import annotations

from typing import Any

from fedjax_sim.core.annotations import Seed
from fedjax_sim.data.partition.apply import Partition
from fedjax_sim.data.text import hashed_words
from fedjax_sim.tasks.base import Task, classifier, classify
from fedjax_sim.tasks.load import load


def imdb(
    *,
    source: str = "imdb_reviews",
    data_dir: str | None = None,
    partition: Partition = "dirichlet",
    clients: int | None = 100,
    length: int = 200,
    test_fraction: float = 0.0,
    seed: Seed = 0,
    model: str = "word_mean",
) -> Task:
    """Reviews; ``x`` int32 ``[n, length]``, words hashed to 1..9999 and 0 for padding, ``y`` 0 or
    1; the official test reviews are the global test set.

    Args:
      source: name in TFDS, or a prepared folder.
      data_dir: folder in which TFDS keeps its data; by default ``$TFDS_DATA_DIR``, else
        ``~/tensorflow_datasets``.
      partition: assigns reviews to clients: a name, or a function with its options bound.
      clients: number of clients, N.
      length: number of words kept of each review.
      test_fraction: share of each client's training reviews for its own test set.
      seed: seed of the partition and of the split.
      model: name of a model: ``"word_mean"``.

    Raises:
      FedError: if the data are absent; the message has the command that prepares them.

    Example:
      >>> import tempfile
      >>> import fedjax_sim as fs
      >>> import numpy as np
      >>> x = np.ones((20, 200), np.int32)
      >>> y = np.arange(20, dtype=np.int32) % 2
      >>> data = fs.data.federation(fs.population(x, y, np.array([0, 20])))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = fs.data.save(data, f"{folder}/tiny", name="tiny", classes=2)
      ...     task = fs.tasks.imdb(source=str(path), partition="iid", clients=4)
      >>> task.data.train.sizes.tolist()
      [5, 5, 5, 5]

    Reference: Maas et al., "Learning Word Vectors for Sentiment Analysis", 2011.
    """

    def convert(texts: Any, labels: Any) -> tuple[Any, Any]:
        return hashed_words(texts, length), labels

    options = {
        "partition": partition,
        "clients": clients,
        "test_fraction": test_fraction,
        "seed": seed,
    }
    loaded = load(source, data_dir=data_dir, convert=convert, **options)
    return classify("imdb", loaded.data, classifier(model, 2))
