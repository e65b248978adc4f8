"""Partitions of a data set over clients, on the host in numpy: made once, before any training.

A partition is a list with one entry per client, ``int64[n_i]``: the rows of the data set that this client holds. No row is
held twice, and every row is held by someone except where a docstring says otherwise. The same arguments and seed always give
the same partition. With equal settings the rows and their order are those that flwr-datasets 0.6.1 gives, where it has the
partition, so that published splits can be rebuilt; numpy keeps its random streams stable in practice but does not promise it
(NEP 19).

All are called alike: ``REGISTRY[name](column, clients, seed=seed, **options)``. What the column has to be is in :data:`COLUMNS`.
A partition that knows its number of clients by itself takes ``None`` for it, and checks a number against its own.

To add one: write a function ``(labels, clients, *, seed, ...) -> Parts`` and name it in :data:`REGISTRY`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from fedjax_sim.data.partition.label_counts import distribution, pathological, power_law
from fedjax_sim.data.partition.label_draws import hsu_dirichlet, inner_dirichlet
from fedjax_sim.data.partition.label_order import shards, similarity
from fedjax_sim.data.partition.label_shares import dirichlet
from fedjax_sim.data.partition.parts import Parts, generator
from fedjax_sim.data.partition.properties import continuous, grouped, natural
from fedjax_sim.data.partition.quantity import growing, iid, quantity_dirichlet, sized

REGISTRY: dict[str, Callable[..., Parts]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "shards": shards,
    "similarity": similarity,
    "pathological": pathological,
    "distribution": distribution,
    "power_law": power_law,
    "inner_dirichlet": inner_dirichlet,
    "hsu_dirichlet": hsu_dirichlet,
    "quantity_dirichlet": quantity_dirichlet,
    "growing": growing,
    "sized": sized,
    "natural": natural,
    "grouped": grouped,
    "continuous": continuous,
}
"""Name to ``(column, clients, *, seed, ...) -> parts``."""

COLUMNS: dict[str, str] = {
    name: next(iter(inspect.signature(make).parameters)) for name, make in REGISTRY.items()
}
"""What each goes by, which is the name of its first parameter: ``labels``, ``ids`` or ``values``, a vector with one entry per example."""

__all__ = [
    "COLUMNS",
    "REGISTRY",
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
