"""Local work: how many steps a client takes, and which of its examples make each batch.

Nothing is stored: the batch of step ``k`` is a function of ``(seed, round, client id, epoch)``, so a resumed, permuted, padded or
sharded run sees the same batches.
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


class LocalWork(NamedTuple):
    """A client's local work in one round. Make one with :func:`local_work`."""

    batch_size: int | None
    epochs: int
    steps: int | None
    shuffle: bool


def local_work(
    batch_size: int | None = 32, epochs: int = 1, steps: int | None = None, shuffle: bool = True
) -> LocalWork:
    """Local work, checked.

    Args:
      batch_size: B, examples in a batch; ``None`` for all of a client's examples (B = infinity in the FedAvg paper).
      epochs: E, passes over a client's examples; each is a true permutation, and its last batch may be partial.
      steps: K, a fixed number of steps for every client instead of whole epochs; passes follow one another as needed.
      shuffle: a new order in each epoch; without it, the order of the data.
    """
    for name, value in (("batch_size", batch_size), ("epochs", epochs), ("steps", steps)):
        if value is not None:
            require(
                isinstance(value, int),
                f"{name} must be a whole number",
                got=repr(value),
                fix=f"give {name} a value such as 10",
            )
            positive(name, value)
    return LocalWork(batch_size, epochs, steps, shuffle)


def steps_per_epoch(local_work: LocalWork, size: Any) -> Any:
    """``ceil(n / B)``, int32; 1 where a batch holds everything."""
    return (
        _home(size).ones_like(size)
        if local_work.batch_size is None
        else -(-size // local_work.batch_size)
    )


def local_steps(local_work: LocalWork, size: Any) -> Any:
    """int32 like ``size``, an array of JAX or of numpy: steps of a client with so many examples in one round; 0 for none."""
    home = _home(size)
    full = (
        steps_per_epoch(local_work, size) * local_work.epochs
        if local_work.steps is None
        else home.full_like(size, local_work.steps)
    )
    return home.where(size > 0, full, 0)


def _home(array: Any) -> Any:
    """The library of an array. What is on the host stays there: JAX would compile a program for each operation on it."""
    return np if isinstance(array, np.ndarray) else jnp


def population_info(local_work: LocalWork, sizes: Array) -> PopulationInfo:
    """What a sampler may know of clients of these sizes (int32[N]) who do this work."""
    return PopulationInfo(sizes, local_steps(local_work, sizes))


def most_steps(local_work: LocalWork, limit: int) -> int:
    """Static: local steps of a client with ``limit`` examples."""
    return local_work.steps or local_work.epochs * math.ceil(
        limit / (local_work.batch_size or limit)
    )


MANY = 2**16
"""Clients that are asked for :func:`evenness`; of more, so many that lie evenly between the first and the last."""


def evenness(local_work: LocalWork, sizes: np.ndarray, cohort: int) -> float:
    """Steps of an average client over those of the longest of a cohort, as is to be expected of clients of these sizes (int[N]) who are
    drawn alike and do all of this work. Nothing but speed hangs on it.

    1 where all take the same; small where few clients of a cohort take most of its time.
    """
    steps = np.asarray(local_steps(local_work, sizes[:: -(-len(sizes) // MANY)]))
    longest = np.quantile(steps, 1 - 1 / (cohort + 1))
    return float(min(steps.mean() / longest, 1.0)) if longest > 0 else 1.0


class BatchIndices(NamedTuple):
    """Which rows of a table make a batch."""

    rows: Array
    """int32[B]; where masked, some row of the same client."""
    mask: Array
    """bool[B]."""


def draw(
    local_work: LocalWork, limit: int, words: Array, table: Table, client: Array, step: Array
) -> BatchIndices:
    """Rows of one client's local steps.

    Args:
      work: the local work; a batch is ``batch_size`` rows, or ``limit`` where that is None.
      limit: static, size of the largest client.
      words: uint32[2], the client's shuffle in this round (``permutation.words_of``), a permutation for each epoch.
      client: int32 scalar, the client's place in the table; past the end, a fully masked batch of the last client.
      step: int32[...], 0 for the first local step of the round; the draw has its axes before its own.
    """
    size = jnp.take(table.size, client, mode="clip")
    per_epoch = jnp.maximum(steps_per_epoch(local_work, size), 1)
    width = min(local_work.batch_size or limit, limit)
    step = jnp.expand_dims(step, -1)
    place = (step % per_epoch) * width + jnp.arange(width, dtype=jnp.int32)
    mask = (place < size) & (client < table.clients)
    place = jnp.clip(
        place, 0, jnp.maximum(size - 1, 0)
    )  # of a client with no example, too: it is masked, and must not wrap
    if (
        local_work.shuffle and width < limit
    ):  # a batch that holds everybody's examples needs no order
        place = permute(words, place, size, step // per_epoch)
    return BatchIndices(jnp.take(table.offset, client, mode="clip") + place, mask)


def fetch(table: Table, drawn: BatchIndices) -> Batch:
    """The examples of a draw."""
    # Without the barrier XLA fuses the rows' arithmetic into the gather and does it again for every scalar of every example.
    rows, mask = lax.optimization_barrier(drawn)
    return Batch(tree.take(table.x, rows), tree.take(table.y, rows), mask)
