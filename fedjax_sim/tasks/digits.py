"""Handwritten digits of 8x8 pixels, part of scikit-learn: real data that needs no network."""

from __future__ import annotations

import numpy as np

from fedjax_sim.core.annotations import Seed
from fedjax_sim.data.federation import hold_out
from fedjax_sim.data.partition.apply import Partition
from fedjax_sim.models.objectives import Statistics
from fedjax_sim.tasks.base import Task, classifier, classify, partitioned


def digits(
    *,
    clients: int | None = 50,
    partition: Partition = "dirichlet",
    test_fraction: float = 0.2,
    global_test_fraction: float = 0.2,
    seed: Seed = 0,
    model: str = "mlp",
    statistics: Statistics = "average",
) -> Task:
    """1,797 digits by 43 people, partitioned over clients; ``x`` float32 ``[n, 8, 8, 1]`` in
    [0, 1], ``y`` int32 in 0..9.

    Args:
      clients: number of clients, N.
      partition: assigns digits to clients: a name of :mod:`fedjax_sim.data.partition`, or a
        function with its options bound, such as ``functools.partial(dirichlet, alpha=0.3)``.
      test_fraction: share of each client's examples for its own test set.
      global_test_fraction: share of all examples for the global test set, taken before the
        partition.
      seed: seed of the hold-out, the partition and the split.
      model: name of a model.
      statistics: policy for batch statistics, for models that have any: averaged, frozen, or local
        to each client.

    Example:
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.digits(clients=5, partition="iid", seed=1)
      >>> task.data.train.clients
      5
      >>> task.data.train.x.shape, task.data.train.x.dtype
      ((1150, 8, 8, 1), dtype('float32'))
      >>> len(task.data.global_test)
      359

    Reference: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI (its test
    part, as in scikit-learn).
    """
    from sklearn.datasets import load_digits  # takes half a second

    images, labels = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    rest, global_test = hold_out(x, labels.astype(np.int32), global_test_fraction, seed)
    data = partitioned(
        rest, global_test, partition, clients=clients, test_fraction=test_fraction, seed=seed
    )
    return classify("digits", data, classifier(model, 10), statistics=statistics)
