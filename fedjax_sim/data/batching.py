"""Local work: how many steps a client takes, and which of its examples make each batch.

Nothing is stored: the batch of step ``k`` is a function of ``(seed, round, client id, epoch)``, so
a resumed, permuted, padded or sharded run has the same batches.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_sim.core import tree
from fedjax_sim.core.errors import positive, require
from fedjax_sim.core.permutation import permute
from fedjax_sim.core.types import Array, Batch, PopulationInfo
from fedjax_sim.data.population import Table

SAMPLED_CLIENTS = 2**16
"""Most clients whose sizes :func:`evenness` looks at; of more clients, it takes every k-th."""


class LocalWork(NamedTuple):
    """A client's local work in one round. Make one with :func:`local_work`."""

    batch_size: int | None
    epochs: int
    steps: int | None
    shuffle: bool


def local_work(
    batch_size: int | None = 32, epochs: int = 1, steps: int | None = None, shuffle: bool = True
) -> LocalWork:
    """Local work: batches of a size, for a number of epochs or of steps.

    Args:
      batch_size: B, examples in a batch; ``None`` for all of a client's examples (B = infinity in
        the FedAvg paper).
      epochs: E, passes over a client's examples; each is a permutation, and its last batch may be
        partial.
      steps: K, a fixed number of steps for every client instead of whole epochs; passes follow one
        another as needed.
      shuffle: a new order in each epoch; without it, the order of the data.

    Raises:
      FedError: if a number is not a whole number above 0.

    Example:
      >>> import fedjax_sim as fs
      >>> fs.data.local_work(batch_size=10, epochs=2)
      LocalWork(batch_size=10, epochs=2, steps=None, shuffle=True)
    """
    for name, value in (("batch_size", batch_size), ("epochs", epochs), ("steps", steps)):
        if value is not None:
            require(
                isinstance(value, int),
                f"{name} must be a whole number",
                got=repr(value),
                fix=f"give {name} a value such as 10",
                setting=name,
            )
            positive(name, value)
    return LocalWork(batch_size, epochs, steps, shuffle)


def steps_per_epoch(local_work: LocalWork, size: Any) -> Any:
    """Returns the batches in one pass over a client's examples, ``ceil(n / B)``.

    Args:
      local_work: the local work; without a batch size the result is 1.
      size: int32[...], examples of clients, an array of JAX or of numpy.

    Returns:
      int32 of the shape of ``size``.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> fs.data.steps_per_epoch(fs.data.local_work(10), np.array([5, 10, 11])).tolist()
      [1, 1, 2]
    """
    if local_work.batch_size is None:
        return _library(size).ones_like(size)
    return -(-size // local_work.batch_size)


def local_steps(local_work: LocalWork, size: Any) -> Any:
    """Returns the steps of clients in one round; 0 for a client without examples.

    Args:
      local_work: the local work.
      size: int32[...], examples of clients, an array of JAX or of numpy.

    Returns:
      int32 of the shape of ``size``, from the same library.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> fs.data.local_steps(fs.data.local_work(10, epochs=3), np.array([0, 5, 11])).tolist()
      [0, 3, 6]
    """
    library = _library(size)
    if local_work.steps is None:
        steps = steps_per_epoch(local_work, size) * local_work.epochs
    else:
        steps = library.full_like(size, local_work.steps)
    return library.where(size > 0, steps, 0)


def _library(array: Any) -> Any:
    # For an array on the host JAX would compile a program for each operation.
    return np if isinstance(array, np.ndarray) else jnp


def population_info(local_work: LocalWork, sizes: Array) -> PopulationInfo:
    """Returns what samplers see of a population: sizes and steps of its clients.

    Args:
      local_work: the local work that every client does.
      sizes: int32[N], examples of each client.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> info = fs.data.population_info(fs.data.local_work(10), np.array([5, 11]))
      >>> info.steps.tolist()
      [1, 2]
    """
    return PopulationInfo(sizes, local_steps(local_work, sizes))


def most_steps(local_work: LocalWork, limit: int) -> int:
    """Returns the steps of a client with ``limit`` examples, as a Python number."""
    return local_work.steps or local_work.epochs * math.ceil(
        limit / (local_work.batch_size or limit)
    )


def evenness(local_work: LocalWork, sizes: np.ndarray, cohort: int) -> float:
    """Estimates how evenly the steps of a cohort are distributed; only speed depends on it.

    Args:
      local_work: the local work that every client does.
      sizes: int[N], examples of each client; clients are drawn uniformly.
      cohort: C.

    Returns:
      Steps of an average client over the expected steps of the longest client of a cohort: 1 if all
      take the same number, small if few clients of a cohort take most of its time.
    """
    steps = np.asarray(local_steps(local_work, sizes[:: -(-len(sizes) // SAMPLED_CLIENTS)]))
    longest = np.quantile(steps, 1 - 1 / (cohort + 1))
    return float(min(steps.mean() / longest, 1.0)) if longest > 0 else 1.0


class BatchIndices(NamedTuple):
    """The rows of a table that make a batch."""

    rows: Array
    """int32[..., B]; where masked, some row of the same client."""
    mask: Array
    """bool[..., B]."""


def draw(
    local_work: LocalWork, limit: int, words: Array, table: Table, client: Array, step: Array
) -> BatchIndices:
    """Returns the rows of one client's batches.

    Args:
      local_work: the local work; a batch is ``batch_size`` rows, or ``limit`` if that is ``None``.
      limit: static, size of the largest client.
      words: uint32[2], the client's shuffle in this round (``permutation.words_of``), from which
        each epoch has its own permutation.
      table: the examples.
      client: int32 scalar, the client's index in the table; past the end, the result is a fully
        masked batch of the last client.
      step: int32[...], 0 for the first local step of the round.

    Returns:
      Rows and mask, ``[..., B]``: the axes of ``step`` come first.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> table = fs.data.to_table(fs.data.population(np.zeros(5), np.zeros(5), [0, 2, 5]))
      >>> work = fs.data.local_work(batch_size=2, shuffle=False)
      >>> @jax.jit
      ... def batch(words, client, step):
      ...     return fs.data.draw(work, 3, words, table, client, step)
      >>> rows, mask = batch(np.zeros(2, np.uint32), np.int32(1), np.arange(2, dtype=np.int32))
      >>> rows.tolist(), mask.tolist()
      ([[2, 3], [4, 4]], [[True, True], [True, False]])
    """
    size = jnp.take(table.size, client, mode="clip")
    per_epoch = jnp.maximum(steps_per_epoch(local_work, size), 1)
    width = min(local_work.batch_size or limit, limit)
    step = jnp.expand_dims(step, -1)
    place = (step % per_epoch) * width + jnp.arange(width, dtype=jnp.int32)
    mask = (place < size) & (client < table.clients)
    # A client without examples is masked, and its index must not wrap.
    place = jnp.clip(place, 0, jnp.maximum(size - 1, 0))
    if local_work.shuffle and width < limit:  # a batch that holds all examples needs no order
        place = permute(words, place, size, step // per_epoch)
    return BatchIndices(jnp.take(table.offset, client, mode="clip") + place, mask)


def fetch(table: Table, indices: BatchIndices) -> Batch:
    """Reads the examples of batches from a table.

    Args:
      table: the examples, leaves ``[examples, ...]``.
      indices: rows and mask, ``[..., B]``.

    Returns:
      A batch with leaves ``[..., B, ...]``.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> table = fs.data.to_table(fs.data.population(np.arange(5), np.zeros(5), [0, 2, 5]))
      >>> indices = fs.data.BatchIndices(np.array([3, 2]), np.array([True, True]))
      >>> fs.data.fetch(table, indices).x.tolist()
      [3, 2]
    """
    # Without the barrier XLA fuses the arithmetic of the rows into the gather and repeats it for
    # every scalar of every example.
    rows, mask = lax.optimization_barrier(indices)
    return Batch(tree.take(table.x, rows), tree.take(table.y, rows), mask)
