"""Human activities recorded by the sensors of a phone, one client per person."""

from __future__ import annotations

from fedjax_sim.core.annotations import Seed
from fedjax_sim.data.partition.apply import Partition
from fedjax_sim.models.objectives import Statistics
from fedjax_sim.tasks.base import Task, classifier, classify
from fedjax_sim.tasks.load import load


def har(
    *,
    source: str = "data/har",
    partition: Partition = "natural",
    clients: int | None = None,
    test_fraction: float = 0.2,
    seed: Seed = 0,
    model: str = "series_cnn",
    statistics: Statistics = "average",
) -> Task:
    """UCI HAR by person; ``x`` float32 ``[n, 128, 9]``, 2.56 s of a phone's sensors, ``y`` in 0..5
    (from walking to lying).

    A folder that was prepared without options has the official 21 training subjects as clients and
    the other 9 subjects as the global test set.

    Args:
      source: folder that `fedjax-sim data prepare uci_har.npz` wrote.
      partition: assigns windows to clients: a name, or a function with its options bound; by
        default each person is a client.
      clients: number of clients, N, for a partition that does not determine it.
      test_fraction: share of each client's windows for its own test set. Windows overlap by half,
        so these are easier to classify than those of other people.
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
      >>> x = np.zeros((20, 128, 9), np.float32)
      >>> y = np.arange(20, dtype=np.int32) % 6
      >>> data = fs.data.federation(fs.population(x, y, np.array([0, 10, 20])))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = fs.data.save(data, f"{folder}/tiny", name="tiny", classes=6)
      ...     task = fs.tasks.har(source=str(path))
      >>> task.data.train.sizes.tolist(), task.data.test.sizes.tolist()
      ([8, 8], [2, 2])

    Reference: Anguita et al., "A Public Domain Dataset for Human Activity Recognition Using
    Smartphones", ESANN 2013.
    """
    loaded = load(
        source,
        "uci_har.npz",
        partition=partition,
        clients=clients,
        test_fraction=test_fraction,
        seed=seed,
    )
    return classify("har", loaded.data, classifier(model, 6), statistics=statistics)
