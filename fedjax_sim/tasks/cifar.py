"""CIFAR-10 and CIFAR-100 through TFDS: small photographs, dealt out by label."""

from __future__ import annotations

from fedjax_sim.data.partition.apply import Partition
from fedjax_sim.models.objectives import Statistics
from fedjax_sim.tasks.base import Task, classifier, classify, standardised
from fedjax_sim.tasks.load import load

MEAN, DEVIATION = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
"""Of the channels of CIFAR-10's training images, in bytes."""
MEAN_100, DEVIATION_100 = (129.3, 124.1, 112.4), (68.2, 65.4, 70.4)
"""The same of CIFAR-100."""


def cifar10(
    *,
    source: str = "cifar10",
    data_dir: str | None = None,
    partition: Partition = "dirichlet",
    clients: int | None = 100,
    test_fraction: float = 0.0,
    seed: int = 0,
    model: str = "resnet",
    statistics: Statistics = "average",
) -> Task:
    """CIFAR-10; ``x`` uint8 ``[n, 32, 32, 3]``, channels standardised on the device, ``y`` in 0..9; its own test is the global one.

    Args:
      source: TFDS's name, or a prepared folder.
      data_dir: where TFDS keeps its data; by default ``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``.
      partition: how images are dealt out.
      clients: N.
      test_fraction: share of each client's training images for its own test.
      seed: of the partition and the split.
      model: a name of the model zoo.
      statistics: policy for batch statistics, for models that have any: averaged, frozen, or local to each client.

    Raises:
      FedError: at once, with the command to run, where the data are absent.

    Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    found = load(
        source,
        partition=partition,
        clients=clients,
        test_fraction=test_fraction,
        seed=seed,
        data_dir=data_dir,
    )
    return classify(
        "cifar10",
        found.data,
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
    seed: int = 0,
    model: str = "resnet",
    statistics: Statistics = "average",
) -> Task:
    """CIFAR-100; ``x`` uint8 ``[n, 32, 32, 3]``, channels standardised on the device, ``y`` in 0..99; its own test is the global one.

    Args:
      source: TFDS's name, or a prepared folder.
      data_dir: where TFDS keeps its data; by default ``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``.
      partition: how images are dealt out; the one of 500 clients with 100 images each in Reddi et al. also looks at the 20 groups of
        labels, and is not here.
      clients: N.
      test_fraction: share of each client's training images for its own test.
      seed: of the partition and the split.
      model: a name of the model zoo.
      statistics: policy for batch statistics, for models that have any: averaged, frozen, or local to each client.

    Raises:
      FedError: at once, with the command to run, where the data are absent.

    Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; Hsu, Qi and Brown, arXiv 1909.06335.
    """
    found = load(
        source,
        partition=partition,
        clients=clients,
        test_fraction=test_fraction,
        seed=seed,
        data_dir=data_dir,
    )
    return classify(
        "cifar100",
        found.data,
        standardised(classifier(model, 100), MEAN_100, DEVIATION_100),
        statistics=statistics,
    )
