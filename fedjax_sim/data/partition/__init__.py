"""Partitions of a data set over clients, on the host in numpy, computed once before training.

A partition is a list with one entry per client, ``int64[n_i]``: the rows of the data set that this
client holds. No row is in two entries, and every row is in one unless a docstring says otherwise.
The same arguments and seed give the same partition. With equal settings the rows and their order
are those of flwr-datasets 0.6.1, where it has the partition, so that published splits can be
rebuilt; numpy keeps its random streams stable in practice but does not guarantee it (NEP 19).

All have the same signature: ``REGISTRY[name](column, clients, seed=seed, **options)``. The metadata
``column`` of an entry names its first parameter: ``labels``, ``ids`` or ``values``, a vector with
one entry per example. A partition that determines the number of clients itself takes ``None`` for
it, and checks a given number.

To add one: write a function ``(labels, clients, *, seed, ...) -> Parts`` and register it below.
"""

from __future__ import annotations

import inspect

from fedjax_sim.core import registry
from fedjax_sim.data.partition.label_counts import distribution, pathological, power_law
from fedjax_sim.data.partition.label_draws import hsu_dirichlet, inner_dirichlet
from fedjax_sim.data.partition.label_order import shards, similarity
from fedjax_sim.data.partition.label_shares import dirichlet
from fedjax_sim.data.partition.parts import Partition, Parts, generator
from fedjax_sim.data.partition.properties import continuous, grouped, natural
from fedjax_sim.data.partition.quantity import growing, iid, quantity_dirichlet, sized

registry.declare(
    registry.Kind(
        "partition",
        "partitions",
        "how the examples of a data set are divided over clients",
        stands_for=(Partition,),
        shorthand="name",
        provided=2,
        wired=("seed",),
        deferred=True,
    )
)
for factory in (
    iid,
    dirichlet,
    shards,
    similarity,
    pathological,
    distribution,
    power_law,
    inner_dirichlet,
    hsu_dirichlet,
    quantity_dirichlet,
    growing,
    sized,
    natural,
    grouped,
    continuous,
):
    registry.register(
        "partition", factory, column=next(iter(inspect.signature(factory).parameters))
    )

REGISTRY = registry.entries("partition")
"""Partitions by name: ``(column, clients, *, seed, ...) -> parts``. The metadata ``column`` names
the vector that a partition takes."""

__all__ = [
    "REGISTRY",
    "Partition",
    "Parts",
    "continuous",
    "dirichlet",
    "distribution",
    "generator",
    "grouped",
    "growing",
    "hsu_dirichlet",
    "iid",
    "inner_dirichlet",
    "natural",
    "pathological",
    "power_law",
    "quantity_dirichlet",
    "shards",
    "similarity",
    "sized",
]
