"""Human activity by the sensors of a phone, one client per person."""

from __future__ import annotations

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
    seed: int = 0,
    model: str = "series_cnn",
    statistics: Statistics = "average",
) -> Task:
    """UCI HAR by person; ``x`` float32 ``[n, 128, 9]``, 2.56 s of a phone's sensors, ``y`` in 0..5, walking to lying.

    Prepared without options, the official 21 training subjects are the clients, and the other 9 the global test set.

    Args:
      source: a folder made by `fedjax-sim data prepare uci_har.npz`.
      partition: how windows are dealt out; by default each person is a client.
      clients: N, for a partition that does not know by itself.
      test_fraction: share of each client's windows for its own test; windows overlap by half, so these are easier than other people's.
      seed: of the partition and the split.
      model: a name of the model zoo.
      statistics: policy for batch statistics, for models that have any: averaged, frozen, or local to each client.

    Raises:
      FedError: at once, with the command to run, where the data are absent.

    Reference: Anguita et al., "A Public Domain Dataset for Human Activity Recognition Using Smartphones", ESANN 2013.
    """
    found = load(
        source,
        "uci_har.npz",
        partition=partition,
        clients=clients,
        test_fraction=test_fraction,
        seed=seed,
    )
    return classify("har", found.data, classifier(model, 6), statistics=statistics)
