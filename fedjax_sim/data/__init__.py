"""Data: populations of clients, partitions, federations, and the batches of a client's local work.

TensorFlow Datasets is imported only when one of its data sets is read
(:func:`fedjax_sim.data.tfds`).
"""

from fedjax_sim.data.batching import (
    BatchIndices,
    LocalWork,
    draw,
    fetch,
    local_steps,
    local_work,
    population_info,
    steps_per_epoch,
)
from fedjax_sim.data.feature_noise import feature_noise
from fedjax_sim.data.federation import (
    Federation,
    describe,
    federation,
    from_arrays,
    from_partition,
    hold_out,
    pool,
    split,
)
from fedjax_sim.data.partition import REGISTRY as PARTITIONS
from fedjax_sim.data.partition import (
    Parts,
    continuous,
    dirichlet,
    distribution,
    grouped,
    growing,
    hsu_dirichlet,
    iid,
    inner_dirichlet,
    natural,
    pathological,
    power_law,
    quantity_dirichlet,
    shards,
    similarity,
    sized,
)
from fedjax_sim.data.partition.apply import Partition, deal
from fedjax_sim.data.population import (
    Examples,
    Population,
    Table,
    by_client,
    population,
    rows,
    to_table,
)
from fedjax_sim.data.prepared.reader import is_prepared, open_prepared, read_card
from fedjax_sim.data.prepared.save import save, write_blocks
from fedjax_sim.data.tfds.catalogue import CATALOGUE
from fedjax_sim.data.tfds.federation import tfds
from fedjax_sim.data.tfds.reader import is_tfds, open_tfds, read_columns

__all__ = [
    "CATALOGUE",
    "PARTITIONS",
    "BatchIndices",
    "Examples",
    "Federation",
    "LocalWork",
    "Partition",
    "Parts",
    "Population",
    "Table",
    "by_client",
    "continuous",
    "deal",
    "describe",
    "dirichlet",
    "distribution",
    "draw",
    "feature_noise",
    "federation",
    "fetch",
    "from_arrays",
    "from_partition",
    "grouped",
    "growing",
    "hold_out",
    "hsu_dirichlet",
    "iid",
    "inner_dirichlet",
    "is_prepared",
    "is_tfds",
    "local_steps",
    "local_work",
    "natural",
    "open_prepared",
    "open_tfds",
    "pathological",
    "pool",
    "population",
    "population_info",
    "power_law",
    "quantity_dirichlet",
    "read_card",
    "read_columns",
    "rows",
    "save",
    "shards",
    "similarity",
    "sized",
    "split",
    "steps_per_epoch",
    "tfds",
    "to_table",
    "write_blocks",
]
