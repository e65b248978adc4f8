"""Data: populations of clients, partitions, federations, and the batches of a client's local work.

TensorFlow Datasets is imported only when a prepared directory is read (:mod:`fedjax_sim.data.tfds`).
"""

from fedjax_sim.data.batching import Batching, Draw, batching, census, draw, fetch, local_steps, steps_per_epoch
from fedjax_sim.data.federation import Federation, describe, federation, from_arrays, from_partition, hold_out, pool, split
from fedjax_sim.data.partition import REGISTRY as PARTITIONS
from fedjax_sim.data.partition import Parts, dirichlet, iid, shards
from fedjax_sim.data.population import Examples, Population, Table, by_client, population, rows, to_table
from fedjax_sim.data.tfds import from_tfds, read_clients, read_columns, read_examples

__all__ = [
    "PARTITIONS",
    "Batching",
    "Draw",
    "Examples",
    "Federation",
    "Parts",
    "Population",
    "Table",
    "batching",
    "by_client",
    "census",
    "describe",
    "dirichlet",
    "draw",
    "federation",
    "fetch",
    "from_arrays",
    "from_partition",
    "from_tfds",
    "hold_out",
    "iid",
    "local_steps",
    "pool",
    "population",
    "read_clients",
    "read_columns",
    "read_examples",
    "rows",
    "shards",
    "split",
    "steps_per_epoch",
    "to_table",
]
