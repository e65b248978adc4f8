"""EMNIST: handwritten digits and letters, through TFDS, which does not say who wrote them."""

from __future__ import annotations

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
    seed: int = 0,
    model: str = "emnist_cnn",
    statistics: Statistics = "average",
) -> Task:
    """EMNIST; ``x`` uint8 ``[n, 28, 28, 1]``, upright, ``y`` in 0..61 (by class); its own test images are the global test set.

    Args:
      source: a name of TFDS (``"emnist/byclass"`` with 62 classes, ``"emnist/balanced"``, ``"emnist/letters"``, ...), or a prepared folder.
      data_dir: where TFDS keeps its data; by default ``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``.
      partition: how images are dealt out.
      clients: N.
      test_fraction: share of each client's training images for its own test.
      seed: of the partition and the split.
      model: a name of the model zoo.
      statistics: policy for batch statistics, for models that have any: averaged, frozen, or local to each client.

    Decoding 800,000 images takes a minute or two each time. `fedjax-sim data prepare FOLDER --partition iid --clients 1` does it once.

    Raises:
      FedError: at once, with the command to run, where the data are absent.

    Reference: Cohen et al., "EMNIST: an extension of MNIST to handwritten letters", 2017.
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
        "emnist", found.data, classifier(model, found.classes or 62), statistics=statistics
    )
