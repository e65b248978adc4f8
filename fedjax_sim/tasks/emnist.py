"""EMNIST: handwritten digits and letters from TFDS, which does not record their writers."""

from __future__ import annotations

from fedjax_sim.core.annotations import Seed
from fedjax_sim.data.partition.apply import Partition
from fedjax_sim.models.objectives import Statistics
from fedjax_sim.tasks.base import Task, classifier, classify
from fedjax_sim.tasks.load import load


def emnist(
    *,
    source: str = "emnist/byclass",
    data_dir: str | None = None,
    partition: Partition = "dirichlet",
    clients: int | None = 1000,
    test_fraction: float = 0.0,
    seed: Seed = 0,
    model: str = "emnist_cnn",
    statistics: Statistics = "average",
) -> Task:
    """EMNIST; ``x`` uint8 ``[n, 28, 28, 1]``, upright, ``y`` in 0..61 (by class); the official test
    images are the global test set.

    Every call decodes the images: one or two minutes for all 800,000. Prepare the data set to
    decode them once: `fedjax-sim data prepare FOLDER --partition iid --clients 1`.

    Args:
      source: name in TFDS (``"emnist/byclass"`` with 62 classes, ``"emnist/balanced"``,
        ``"emnist/letters"``, ...), or a prepared folder.
      data_dir: folder in which TFDS keeps its data; by default ``$TFDS_DATA_DIR``, else
        ``~/tensorflow_datasets``.
      partition: assigns images to clients: a name, or a function with its options bound.
      clients: number of clients, N.
      test_fraction: share of each client's training images for its own test set.
      seed: seed of the partition and of the split.
      model: name of a model.
      statistics: policy for batch statistics, for models that have any: averaged, frozen, or local
        to each client.

    Raises:
      FedError: if the data are absent; the message has the command that prepares them.

    Example:
      >>> import tempfile
      >>> import fedjax_sim as fs
      >>> import numpy as np
      >>> x = np.zeros((124, 28, 28, 1), np.uint8)
      >>> y = np.arange(124, dtype=np.int32) % 62
      >>> data = fs.data.federation(fs.population(x, y, np.array([0, 124])))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = fs.data.save(data, f"{folder}/tiny", name="tiny", classes=62)
      ...     task = fs.tasks.emnist(source=str(path), partition="iid", clients=4)
      >>> task.data.train.sizes.tolist()
      [31, 31, 31, 31]

    Reference: Cohen et al., "EMNIST: an extension of MNIST to handwritten letters", 2017.
    """
    loaded = load(
        source,
        partition=partition,
        clients=clients,
        test_fraction=test_fraction,
        seed=seed,
        data_dir=data_dir,
    )
    return classify(
        "emnist", loaded.data, classifier(model, loaded.classes or 62), statistics=statistics
    )
