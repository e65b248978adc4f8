"""MNIST, one client per writer or partitioned by label."""

from __future__ import annotations

from fedjax_sim.core.annotations import Seed
from fedjax_sim.data.partition.apply import Partition
from fedjax_sim.models.objectives import Statistics
from fedjax_sim.tasks.base import Task, classifier, classify
from fedjax_sim.tasks.load import load


def mnist(
    *,
    source: str = "data/mnist",
    partition: Partition = "natural",
    clients: int | None = None,
    test_fraction: float = 0.1,
    seed: Seed = 0,
    model: str = "emnist_cnn",
    statistics: Statistics = "average",
) -> Task:
    """MNIST; ``x`` uint8 ``[n, 28, 28, 1]`` (models scale bytes to [0, 1]), ``y`` in 0..9; the
    official test images are the global test set.

    Args:
      source: folder that `fedjax-sim data prepare mnist.npz` wrote, or a prepared TFDS folder.
      partition: assigns images to clients: a name, or a function with its options bound; by default
        each writer is a client (539 writers of QMNIST), which needs data that record the writers.
      clients: number of clients, N, for a partition that does not determine it.
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
      >>> x = np.zeros((20, 28, 28, 1), np.uint8)
      >>> y = np.arange(20, dtype=np.int32) % 10
      >>> data = fs.data.federation(fs.population(x, y, np.array([0, 10, 20])))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = fs.data.save(data, f"{folder}/tiny", name="tiny", classes=10)
      ...     task = fs.tasks.mnist(source=str(path))
      >>> task.data.train.sizes.tolist(), task.data.test.sizes.tolist()
      ([9, 9], [1, 1])

    Reference: LeCun et al., "Gradient-based learning applied to document recognition", 1998;
    writers by Yadav and Bottou, "Cold Case: The Lost MNIST Digits", 2019.
    """
    loaded = load(
        source,
        "mnist.npz",
        partition=partition,
        clients=clients,
        test_fraction=test_fraction,
        seed=seed,
    )
    return classify("mnist", loaded.data, classifier(model, 10), statistics=statistics)
