"""CIFAR-10 and CIFAR-100 from TFDS: small photographs, partitioned by label."""

from __future__ import annotations

from fedjax_sim.core.annotations import Seed
from fedjax_sim.data.partition.apply import Partition
from fedjax_sim.models.objectives import Statistics
from fedjax_sim.tasks.base import Task, classifier, classify, standardised
from fedjax_sim.tasks.load import load

MEAN = (125.3, 123.0, 113.9)
"""Mean of each channel of CIFAR-10's training images, in bytes."""
DEVIATION = (63.0, 62.1, 66.7)
"""Standard deviation of each channel of CIFAR-10's training images, in bytes."""
MEAN_100 = (129.3, 124.1, 112.4)
"""Mean of each channel of CIFAR-100's training images, in bytes."""
DEVIATION_100 = (68.2, 65.4, 70.4)
"""Standard deviation of each channel of CIFAR-100's training images, in bytes."""


def cifar10(
    *,
    source: str = "cifar10",
    data_dir: str | None = None,
    partition: Partition = "dirichlet",
    clients: int | None = 100,
    test_fraction: float = 0.0,
    seed: Seed = 0,
    model: str = "resnet",
    statistics: Statistics = "average",
) -> Task:
    """CIFAR-10; ``x`` uint8 ``[n, 32, 32, 3]``, channels standardised on the device, ``y`` in 0..9;
    the official test images are the global test set.

    Args:
      source: name in TFDS, or a prepared folder.
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
      >>> x = np.zeros((20, 32, 32, 3), np.uint8)
      >>> y = np.arange(20, dtype=np.int32) % 10
      >>> data = fs.data.federation(fs.population(x, y, np.array([0, 20])))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = fs.data.save(data, f"{folder}/tiny", name="tiny", classes=10)
      ...     task = fs.tasks.cifar10(source=str(path), partition="iid", clients=4)
      >>> task.data.train.sizes.tolist()
      [5, 5, 5, 5]

    Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
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
        "cifar10",
        loaded.data,
        standardised(classifier(model, 10), MEAN, DEVIATION),
        statistics=statistics,
    )


def cifar100(
    *,
    source: str = "cifar100",
    data_dir: str | None = None,
    partition: Partition = "hsu_dirichlet",
    clients: int | None = 100,
    test_fraction: float = 0.0,
    seed: Seed = 0,
    model: str = "resnet",
    statistics: Statistics = "average",
) -> Task:
    """CIFAR-100; ``x`` uint8 ``[n, 32, 32, 3]``, channels standardised on the device, ``y`` in
    0..99; the official test images are the global test set.

    Args:
      source: name in TFDS, or a prepared folder.
      data_dir: folder in which TFDS keeps its data; by default ``$TFDS_DATA_DIR``, else
        ``~/tensorflow_datasets``.
      partition: assigns images to clients: a name, or a function with its options bound. The
        partition of Reddi et al. (500 clients with 100 images each) also uses the 20 groups of
        labels, and is not available.
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
      >>> x = np.zeros((200, 32, 32, 3), np.uint8)
      >>> y = np.arange(200, dtype=np.int32) % 100
      >>> data = fs.data.federation(fs.population(x, y, np.array([0, 200])))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = fs.data.save(data, f"{folder}/tiny", name="tiny", classes=100)
      ...     task = fs.tasks.cifar100(source=str(path), partition="iid", clients=4)
      >>> task.data.train.sizes.tolist()
      [50, 50, 50, 50]

    Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; Hsu, Qi
    and Brown, arXiv 1909.06335.
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
        "cifar100",
        loaded.data,
        standardised(classifier(model, 100), MEAN_100, DEVIATION_100),
        statistics=statistics,
    )
