"""Any labelled data set in a prepared folder."""

from __future__ import annotations

from fedjax_sim.core.annotations import Seed
from fedjax_sim.core.errors import require
from fedjax_sim.data.partition.apply import Partition
from fedjax_sim.models.objectives import Statistics
from fedjax_sim.tasks.base import Task, classifier, classify
from fedjax_sim.tasks.load import load


def prepared(
    *,
    source: str = "data/prepared",
    partition: Partition = "natural",
    clients: int | None = None,
    test_fraction: float = 0.0,
    seed: Seed = 0,
    model: str = "mlp",
    statistics: Statistics = "average",
) -> Task:
    """The data of a folder, unchanged: one integer label is predicted for each example, or one for
    each position of a sequence.

    Args:
      source: folder that `fedjax-sim data prepare` or :func:`fedjax_sim.data.save` wrote, or a
        prepared TFDS folder or name.
      partition: assigns examples to clients: a name, or a function with its options bound; by
        default the clients are those of the data.
      clients: number of clients, N, for a partition that does not determine it.
      test_fraction: share of each client's examples for its own test set, if the data have none;
        with 0, examples stay on disk until they are used.
      seed: seed of the partition and of the split.
      model: name of a model that accepts these examples.
      statistics: policy for batch statistics, for models that have any: averaged, frozen, or local
        to each client.

    Raises:
      FedError: if the data are absent, or their number of labels is unknown.

    Example:
      >>> import tempfile
      >>> import fedjax_sim as fs
      >>> data = fs.tasks.synthetic(clients=3).data
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = fs.data.save(data, f"{folder}/mine", name="mine", classes=10)
      ...     task = fs.tasks.prepared(source=str(path), model="logistic")
      >>> task.data.train.clients
      3
    """
    loaded = load(
        source, partition=partition, clients=clients, test_fraction=test_fraction, seed=seed
    )
    require(
        loaded.classes is not None,
        "a data set to classify needs its number of labels",
        got=f"none in {source}",
        fix="prepare it with its number of classes",
        setting="source",
    )
    return classify(
        "prepared", loaded.data, classifier(model, loaded.classes or 0), statistics=statistics
    )
