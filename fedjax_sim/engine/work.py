"""One client's part of a round: a learner bound to its keys, its message and its examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.random import fold_in

from fedjax_sim.core import tree
from fedjax_sim.core.permutation import words_of
from fedjax_sim.core.types import (
    Aggregator,
    Array,
    Key,
    Learner,
    Member,
    Message,
    Metrics,
    PyTree,
    Upload,
)
from fedjax_sim.data.batching import BatchIndices, LocalWork, draw, fetch
from fedjax_sim.data.population import Table
from fedjax_sim.engine.nonfinite import OFF, NonFinitePolicy, is_dropped

# Streams of a client's key. The number of a local step is folded into the stream STEP.
SHUFFLE = 0
START = 1
STEP = 2
FINISH = 3
LIFT = 4


class Client(NamedTuple):
    """A member of the cohort and its random streams, computed for the whole cohort at once."""

    member: Member
    place: Array
    """int32, the client's index in the table of examples."""
    shuffle: Array
    """uint32[2], seed of the order of its examples in this round."""
    key: Array
    """uint32[...], data of the client's key, from which all its other random numbers come."""


class Finished(NamedTuple):
    """A client's results of one trip."""

    upload: Upload
    stats: PyTree
    memory: PyTree
    """The client's new memory row; ``None`` leaves the table as it is."""
    metrics: Metrics
    dropped: Array | None = None
    """bool, True if the guard drops the client; ``None`` if the guard checks no clients."""


class Work(NamedTuple):
    """Functions of ONE client; the engines map them over lanes or rows."""

    enrol: Callable[[Member], Client]
    """``member -> client``."""
    start: Callable[[Client, PyTree], PyTree]
    """``(client, memory) -> local``."""
    draw: Callable[[Client, Array], BatchIndices]
    """``(client, k) -> indices``: the batches of the local steps ``k``, int32[...]."""
    step: Callable[[Client, PyTree, PyTree, Array, BatchIndices], tuple[PyTree, Metrics]]
    """``(client, memory, local, k, indices) -> (local, metrics)``: local step ``k`` on that
    batch."""
    finish: Callable[[Client, PyTree, PyTree], Finished]
    """``(client, memory, local) -> finished``."""
    reduce: Literal["sum", "stack"]
    bound: int
    """Static: the largest number of steps of any client."""


class ClientShapes(NamedTuple):
    """Shapes and dtypes of the arguments and results of a :class:`Work`, for one client."""

    client: Client
    memory: PyTree
    local: PyTree
    metrics: Metrics
    finished: Finished


def bind(
    learner: Learner,
    aggregator: Aggregator,
    key: Key,
    broadcast: Callable[[Member], Message],
    state: PyTree,
    table: Table,
    local_work: LocalWork,
    limit: int,
    bound: int,
    guard: NonFinitePolicy = OFF,
) -> Work:
    """Binds a learner and an aggregator to a table of examples.

    Each function calls ``broadcast`` again instead of carrying the message: parts of the message
    that do not depend on the member then stay unbatched under vmap, and lanes share one copy of the
    anchor.

    Args:
      learner: the clients' part of the algorithm.
      aggregator: its ``lift`` runs on each client.
      key: the trip's key; a client's key is this one with the client's id folded in.
      broadcast: ``member -> message``.
      state: the aggregator's state.
      table: the examples.
      local_work: batch size, epochs and steps of each client.
      limit: static, examples of the largest client.
      bound: static, the largest number of steps of any client.
      guard: whether clients with non-finite results are dropped.
    """

    def enrol(member: Member) -> Client:
        # The id decides, so that neither the row in the cohort nor the lane matters.
        own_key = fold_in(key, member.id)
        return Client(
            member,
            table.place(member.id),
            words_of(fold_in(own_key, SHUFFLE)),
            jax.random.key_data(own_key),
        )

    def start(client: Client, memory: PyTree) -> PyTree:
        return learner.start(stream(client, START), broadcast(client.member), memory)

    def step(
        client: Client, memory: PyTree, local: PyTree, k: Array, indices: BatchIndices
    ) -> tuple[PyTree, Metrics]:
        return learner.step(
            fold_in(stream(client, STEP), k),
            broadcast(client.member),
            memory,
            local,
            fetch(table, indices),
        )

    def finish(client: Client, memory: PyTree, local: PyTree) -> Finished:
        upload, memory, metrics = learner.finish(
            stream(client, FINISH), broadcast(client.member), memory, local
        )
        wide = tree.widen(
            Upload(upload.delta, upload.state, upload.extra, client.member.size, jnp.int32(1))
        )
        upload, stats = aggregator.lift(stream(client, LIFT), state, wide)
        dropped = is_dropped(guard, wide.delta, (upload, stats, memory))
        return Finished(upload, stats, memory, metrics, dropped)

    return Work(
        enrol,
        start,
        drawing(local_work, limit, table),
        step,
        finish,
        aggregator.reduce or "sum",
        bound,
    )


def drawing(
    local_work: LocalWork, limit: int, table: Table
) -> Callable[[Client, Array], BatchIndices]:
    """Returns :attr:`Work.draw` for clients that do this local work.

    Args:
      local_work: batch size, epochs and steps.
      limit: static, examples of the largest client.
      table: the examples.
    """
    return lambda client, k: draw(local_work, limit, client.shuffle, table, client.place, k)


def stream(client: Client, number: int) -> Key:
    """Returns the client's key of the stream with this number (``SHUFFLE``, ``START``, ...)."""
    return fold_in(jax.random.wrap_key_data(client.key), number)


def client_shapes(work: Work, member: Member, memory: PyTree) -> ClientShapes:
    """Computes the shapes of one client's states and results; nothing is executed.

    Args:
      work: functions of one client.
      member: a member without leading axes (scalars or their shapes).
      memory: one row of client memory (arrays or shapes).
    """
    client = jax.eval_shape(work.enrol, member)
    local = jax.eval_shape(work.start, client, memory)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    indices = jax.eval_shape(work.draw, client, number)
    _, metrics = jax.eval_shape(work.step, client, memory, local, number, indices)
    finished = jax.eval_shape(work.finish, client, memory, local)
    return ClientShapes(client, memory, local, metrics, finished)


def row_shapes(table: Any) -> Any:
    """Returns the shape of one row of every leaf of a tree of arrays or shapes."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), table)


class Reduced(NamedTuple):
    """The reduced results of one shard's clients."""

    upload: Upload
    """The sum, or ``[Q, ...]`` in queue order."""
    stats: PyTree
    clients: Metrics
    """``[Q]`` in every leaf, in queue order; zeros for absent clients."""
    table: PyTree
    """The memory table with the clients' new rows."""
    dropped: Array | None = None
    """bool[Q] in queue order, True for clients that the guard dropped."""


def client_metrics(steps: Metrics, finished: Metrics) -> Metrics:
    """Merges a client's metrics summed over its steps with the metrics of its finish."""
    return {**steps, **finished}


def empty_reduction(like: ClientShapes, reduce: str, length: int, table: PyTree) -> Reduced:
    """Returns the reduction before the first client.

    Args:
      like: shapes of one client's results.
      reduce: ``"sum"`` or ``"stack"``.
      length: Q, the shard's number of clients.
      table: the memory table.
    """
    upload = tree.zeros_like(like.finished.upload)
    if reduce == "stack":
        upload = tree.tile(upload, length)
    metrics = tree.zeros_like(client_metrics(like.metrics, like.finished.metrics))
    return Reduced(
        upload,
        clients=tree.tile(metrics, length),
        stats=tree.zeros_like(like.finished.stats),
        table=table,
        dropped=tree.tile(tree.zeros_like(like.finished.dropped), length),
    )


def add_uploads(
    reduce: str, running: Upload, uploads: Upload, present: Array, place: Array
) -> Upload:
    """Adds the uploads of present clients to the running reduction.

    Args:
      reduce: ``"sum"`` or ``"stack"``.
      running: the sum so far, or ``[Q, ...]`` in queue order.
      uploads: ``[L, ...]`` in every leaf.
      present: bool[L]; the other uploads change nothing.
      place: int32[L], the clients' places in the queue.
    """
    if reduce == "stack":
        length = jax.tree.leaves(running)[0].shape[0]
        return tree.put(running, jnp.where(present, place, length), uploads)
    return add_present(running, uploads, present)


def write_memory(table: PyTree, slots: Array, memory: PyTree) -> PyTree:
    """Writes the clients' rows into the memory table; a slot past the end writes nothing."""
    return table if memory is None else tree.put(table, slots, memory)


def add_present(running: PyTree, values: PyTree, present: Array) -> PyTree:
    """Adds the rows of ``values`` (``[L, ...]``) where ``present`` (bool[L]) to ``running``."""
    return tree.add(running, tree.total(tree.where(present, values, tree.zeros_like(values))))
