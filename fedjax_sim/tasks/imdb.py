"""IMDB's film reviews through TFDS: good or bad, by the words."""

from __future__ import annotations

from typing import Any

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
    seed: int = 0,
    model: str = "word_mean",
) -> Task:
    """Reviews; ``x`` int32 ``[n, length]``, words hashed to 1..9999 and 0 for padding, ``y`` 0 or 1; its own test is the global one.

    Args:
      source: TFDS's name, or a prepared folder.
      data_dir: where TFDS keeps its data; by default ``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``.
      partition: how reviews are dealt out.
      clients: N.
      length: words kept of each review.
      test_fraction: share of each client's training reviews for its own test.
      seed: of the partition and the split.
      model: a name of the model zoo: ``"word_mean"``.

    Raises:
      FedError: at once, with the command to run, where the data are absent.

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
    found = load(source, data_dir=data_dir, convert=convert, **options)
    return classify("imdb", found.data, classifier(model, 2))
