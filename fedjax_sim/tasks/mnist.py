"""MNIST by writer, or dealt out by label."""

from __future__ import annotations

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
    seed: int = 0,
    model: str = "emnist_cnn",
    statistics: Statistics = "average",
) -> Task:
    """MNIST; ``x`` uint8 ``[n, 28, 28, 1]`` (models scale bytes to [0, 1]), ``y`` in 0..9; its own test images are the global test set.

    Args:
      source: a folder made by `fedjax-sim data prepare mnist.npz`, or a prepared TFDS folder.
      partition: how images are dealt out; by default each writer is a client (539 of QMNIST's), where the data say who wrote what.
      clients: N, for a partition that does not know by itself.
      test_fraction: share of each client's training images for its own test.
      seed: of the partition and the split.
      model: a name of the model zoo.
      statistics: policy for batch statistics, for models that have any: averaged, frozen, or local to each client.

    Raises:
      FedError: at once, with the command to run, where the data are absent.

    Reference: LeCun et al., "Gradient-based learning applied to document recognition", 1998; writers by Yadav and Bottou,
    "Cold Case: The Lost MNIST Digits", 2019.
    """
    found = load(
        source,
        "mnist.npz",
        partition=partition,
        clients=clients,
        test_fraction=test_fraction,
        seed=seed,
    )
    return classify("mnist", found.data, classifier(model, 10), statistics=statistics)
