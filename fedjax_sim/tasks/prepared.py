"""Any labelled data set that was prepared, your own too."""

from __future__ import annotations

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
    seed: int = 0,
    model: str = "mlp",
    statistics: Statistics = "average",
) -> Task:
    """The data of a folder, as they are: one integer label, or one for every place of a sequence, is predicted for each example.

    Args:
      source: a folder made by `fedjax-sim data prepare` or :func:`fedjax_sim.data.save`, or a prepared TFDS folder or name.
      partition: how examples are dealt out; by default as they are in the data.
      clients: N, for a partition that does not know by itself.
      test_fraction: share of each client's examples for its own test, where it has none in the data; at 0, examples stay on disk until
        they are used.
      seed: of the partition and the split.
      model: a name of the model zoo that takes such examples.
      statistics: policy for batch statistics, for models that have any: averaged, frozen, or local to each client.

    Raises:
      FedError: at once, where there are no data, or they do not say how many labels there are.
    """
    found = load(
        source, partition=partition, clients=clients, test_fraction=test_fraction, seed=seed
    )
    do = "prepare it with its number of classes"
    require(
        found.classes is not None,
        "a data set to classify needs its number of labels",
        got=f"none in {source}",
        fix=do,
        setting="source",
    )
    return classify(
        "prepared", found.data, classifier(model, found.classes or 0), statistics=statistics
    )
