"""One client's life in a round, as the engines see it: a learner bound to its keys, its message and its data."""

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

# Streams of a client's key. Steps have a stream of their own, into which the step's number is folded.
SHUFFLE, START, STEP, FINISH, LIFT = range(5)


class Client(NamedTuple):
    """A member of the cohort with what it draws from, derived for the whole cohort at once before the first step."""

    member: Member
    place: Array
    """int32, where its examples are in the table of examples."""
    shuffle: Array
    """uint32[2], names the order of its examples in this round."""
    key: Array
    """uint32[...], data of the key that everything else of it is drawn from."""


class Finished(NamedTuple):
    """What a client leaves behind."""

    upload: Upload
    stats: PyTree
    memory: PyTree
    """Its new memory row; ``None`` leaves the table as it is."""
    metrics: Metrics
    dropped: Array | None = None
    """bool, whether a guard sends it away, so that it leaves nothing; ``None`` where none looks."""


class Work(NamedTuple):
    """Functions of ONE client; the engines map them over lanes or rows."""

    enrol: Callable[[Member], Client]
    """``member -> client``."""
    start: Callable[[Client, PyTree], PyTree]
    """``(client, memory) -> local``."""
    draw: Callable[[Client, Array], BatchIndices]
    """``(client, k) -> draw``: the batches of the local steps numbered ``k``, int32[...]."""
    step: Callable[[Client, PyTree, PyTree, Array, BatchIndices], tuple[PyTree, Metrics]]
    """``(client, memory, local, k, draw) -> (local, metrics)``: local step number ``k``, on that batch."""
    finish: Callable[[Client, PyTree, PyTree], Finished]
    """``(client, memory, local) -> finished``."""
    reduce: Literal["sum", "stack"]
    bound: int
    """Static: the most steps that any client can take."""


class Like(NamedTuple):
    """Shapes and dtypes of what passes through a :class:`Work`, for one client."""

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
    """A learner and an aggregator as :class:`Work` on a table.

    The message is asked for anew in each function rather than carried: what does not depend on the member then stays unbatched
    under vmap, so that lanes share one copy of the anchor.
    """

    def enrol(member: Member) -> Client:
        # By its id, so that neither its place in the cohort nor its lane matters.
        own = fold_in(key, member.id)
        return Client(
            member,
            table.place(member.id),
            words_of(fold_in(own, SHUFFLE)),
            jax.random.key_data(own),
        )

    def start(client: Client, memory: PyTree) -> PyTree:
        return learner.start(stream(client, START), broadcast(client.member), memory)

    def step(
        client: Client, memory: PyTree, local: PyTree, k: Array, drawn: BatchIndices
    ) -> tuple[PyTree, Metrics]:
        return learner.step(
            fold_in(stream(client, STEP), k),
            broadcast(client.member),
            memory,
            local,
            fetch(table, drawn),
        )

    def finish(client: Client, memory: PyTree, local: PyTree) -> Finished:
        upload, memory, metrics = learner.finish(
            stream(client, FINISH), broadcast(client.member), memory, local
        )
        wide = tree.widen(
            Upload(upload.delta, upload.state, upload.extra, client.member.size, jnp.int32(1))
        )
        upload, stats = aggregator.lift(stream(client, LIFT), state, wide)
        return Finished(
            upload, stats, memory, metrics, is_dropped(guard, wide.delta, (upload, stats, memory))
        )

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
    """:attr:`Work.draw` of clients who do this local work on a table."""
    return lambda client, k: draw(local_work, limit, client.shuffle, table, client.place, k)


def stream(client: Client, number: int) -> Key:
    """A client's key for one purpose."""
    return fold_in(jax.random.wrap_key_data(client.key), number)


def shapes(work: Work, member: Member, memory: PyTree) -> Like:
    """Shapes of one client's passage, from a member and a memory row (arrays or shapes)."""
    client = jax.eval_shape(work.enrol, member)
    local = jax.eval_shape(work.start, client, memory)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    _, metrics = jax.eval_shape(
        work.step, client, memory, local, number, jax.eval_shape(work.draw, client, number)
    )
    return Like(client, memory, local, metrics, jax.eval_shape(work.finish, client, memory, local))


def row(table: Any) -> Any:
    """Shape of one row of every leaf."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), table)


class Reduced(NamedTuple):
    """What one shard's clients left behind together."""

    upload: Upload
    """The sum, or ``[Q, ...]`` in queue order."""
    stats: PyTree
    clients: Metrics
    """``[Q]`` in every leaf, in queue order; zeros where absent."""
    table: PyTree
    """The memory table, written."""
    dropped: Array | None = None
    """bool[Q], in queue order: whom a guard sent away."""


def client_metrics(steps: Metrics, finished: Metrics) -> Metrics:
    """A client's metrics: those of its steps, added up, and those of its finish."""
    return {**steps, **finished}


def empty(like: Like, reduce: str, length: int, table: PyTree) -> Reduced:
    """The reduction of ``length`` clients before the first of them."""
    upload = like.finished.upload
    upload = (
        tree.zeros_like(upload) if reduce == "sum" else tree.tile(tree.zeros_like(upload), length)
    )
    clients = tree.tile(
        tree.zeros_like(client_metrics(like.metrics, like.finished.metrics)), length
    )
    return Reduced(
        upload,
        tree.zeros_like(like.finished.stats),
        clients,
        table,
        tree.tile(tree.zeros_like(like.finished.dropped), length),
    )


def absorb(reduce: str, running: Upload, uploads: Upload, present: Array, place: Array) -> Upload:
    """Uploads ``[L, ...]`` of the clients at queue places ``place``, added to the running reduction; only those present count."""
    if reduce == "stack":
        length = jax.tree.leaves(running)[0].shape[0]
        return tree.put(running, jnp.where(present, place, length), uploads)
    return add_present(running, uploads, present)


def remember(table: PyTree, slots: Array, memory: PyTree) -> PyTree:
    """The table with the clients' rows written; a slot past the end writes nothing."""
    return table if memory is None else tree.put(table, slots, memory)


def add_present(running: PyTree, values: PyTree, present: Array) -> PyTree:
    """``running`` plus the rows of ``values`` that are present."""
    return tree.add(running, tree.total(tree.where(present, values, tree.zeros_like(values))))
