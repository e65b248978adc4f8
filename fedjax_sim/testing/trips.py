"""What an algorithm's round asks of the engine, from shapes alone: its trips, its signature, its
dtypes.

The round is evaluated abstractly, with a trip that runs one client's functions once and compiles
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_sim.core import tree
from fedjax_sim.core.types import (
    Aggregator,
    Algorithm,
    Batch,
    Learner,
    Mean,
    Member,
    Message,
    Outcome,
    PyTree,
    Roster,
    Trip,
    Upload,
    Variables,
)
from fedjax_sim.engine.nonfinite import NONFINITE
from fedjax_sim.testing import problem
from fedjax_sim.testing.failures import expect, fail_check
from fedjax_sim.testing.jaxpr import walk
from fedjax_sim.testing.problem import BATCH, PEOPLE, C, N
from fedjax_sim.testing.program import Factory, make


class TripSignature(NamedTuple):
    """One trip of a round.

    Attributes:
      reduce: ``"sum"`` or ``"stack"``.
      epochs: passes that replace the local work; ``None`` if the local work holds.
      extra: whether the message carries more than the model.
      aggregator_state: whether the aggregator keeps state.
    """

    reduce: str
    epochs: int | None
    extra: bool
    aggregator_state: bool


class Signature(NamedTuple):
    """What the layout theorem depends on. Algorithms of one signature ask the same of the engine.

    Attributes:
      memory: whether clients keep memory.
      trips: the trips of a round, in order.
      personal: whether a client's model depends on its memory.
    """

    memory: bool
    trips: tuple[TripSignature, ...]
    personal: bool


class Record(NamedTuple):
    """What an abstract round showed.

    Attributes:
      trips: the signature of each trip.
      stale_roster: numbers of the trips that did not get the roster that the trip before gave back.
      reports_last: whether the outcome is the one of the last trip.
      loose_local: numbers of the trips whose local state changes shape or dtype in a step.
    """

    trips: list[TripSignature]
    stale_roster: list[int]
    reports_last: list[bool]
    loose_local: list[int]


@lru_cache(maxsize=256)
def signature(factory: Factory) -> Signature:
    """The signature of an algorithm at its default settings.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.
    """
    algorithm = make(factory)
    record, _, _ = evaluate(algorithm, problem.weights())
    memory = jax.eval_shape(algorithm.memory, problem.weights())
    return Signature(bool(jax.tree.leaves(memory)), tuple(record.trips), is_personal(algorithm))


def is_personal(algorithm: Algorithm) -> bool:
    """Whether the model that a client predicts with depends on its memory."""
    start = problem.weights()
    member = Member(*(jnp.int32(0) for _ in Member._fields))
    message = jax.eval_shape(lambda s: algorithm.broadcast(algorithm.init(s), member), start)
    arguments = (message, jax.eval_shape(algorithm.memory, start))
    chosen = (
        jax.tree.map(lambda leaf: False, arguments[0]),
        jax.tree.map(lambda leaf: True, arguments[1]),
    )
    jaxpr = jax.make_jaxpr(algorithm.personal)(*arguments)
    return any(walk(jaxpr, jax.tree.leaves(chosen), lambda equation, depends: None))


def check_trips(factory: Factory) -> None:
    """Checks that the trips of a round follow one another.

    A guard may drop clients in a trip. The next trip must get the roster that the trip before gave
    back, and the outcome must be the last trip's, or dropped clients would return.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.

    Raises:
      CheckError: if a trip gets another roster, or the outcome is another one.
    """
    record, _, _ = evaluate(make(factory), problem.weights())
    expect(
        bool(record.trips), "check_trips: a round makes a trip", got="none", look="call trip(...)"
    )
    expect(
        not record.stale_roster,
        "check_trips: a trip gets the roster that the trip before gave back",
        got=f"another roster in trip {record.stale_roster}",
        look="pass seen.roster and seen.memory of the trip before to the next trip",
    )
    expect(
        record.reports_last == [True],
        "check_trips: a round reports the outcome of its last trip",
        got="another outcome",
        look="return the outcome of the last trip as it is",
    )


def check_dtypes(factory: Factory) -> None:
    """Checks that no shape or dtype changes in a round, whatever the dtypes of the model.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.

    Raises:
      CheckError: for a leaf of the algorithm's state, of client memory or of local state that
      changes.
    """
    start = problem.weights()
    half = {"w": start.params["w"].astype(jnp.bfloat16), "b": start.params["b"].astype(jnp.float16)}
    for params in (start.params, half):
        record, before, after = evaluate(make(factory), start._replace(params=params))
        changed = [
            f"{jax.tree_util.keystr(path)} is {shown(old)} and becomes {shown(new)}"
            for (path, old), new in zip(
                jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
            )
            if (old.shape, old.dtype) != (new.shape, new.dtype)
        ]
        look = (
            "results in other dtypes: use tree.cast, or tree.scale and tree.axpy, which keep dtypes"
        )
        expect(
            not changed,
            "check_dtypes: a round keeps the dtypes of its state",
            got="; ".join(changed),
            look=look,
        )
        expect(
            not record.loose_local,
            "check_dtypes: a local step keeps the dtypes of the local state",
            got=f"others in trip {record.loose_local}",
            look=look,
        )


def evaluate(algorithm: Algorithm, start: Variables) -> tuple[Record, PyTree, PyTree]:
    """Evaluates one round abstractly.

    Args:
      algorithm: the algorithm, on the objective of the small problem.
      start: the model, which decides shapes and dtypes.

    Returns:
      What the round showed, and the shapes of ``(algorithm state, memory)`` before and after it.
    """
    record = Record([], [], [], [])

    def round_(state: PyTree, memory: PyTree, roster: Roster, key: Any, batch: Batch) -> PyTree:
        trips = AbstractTrips(record, roster, batch)
        state, memory, outcome = algorithm.round(trips.trip, key, state, memory, roster)
        marker = outcome.clients.get(NONFINITE)
        record.reports_last.append(marker is trips.marker and marker is not None)
        return state, memory

    rows: Any = jax.ShapeDtypeStruct((C,), jnp.int32)
    count: Any = jax.ShapeDtypeStruct((), jnp.int32)
    roster = Roster(rows, rows, rows, rows, count)
    memory = jax.eval_shape(lambda s: tree.tile(algorithm.memory(s), N), start)
    before = jax.eval_shape(lambda s, m: (algorithm.init(s), m), start, memory)
    batch = Batch(PEOPLE.x[:BATCH], PEOPLE.y[:BATCH], jnp.ones(BATCH, bool))
    key = jax.eval_shape(lambda: jax.random.key(0))
    after = jax.eval_shape(round_, *before, roster, key, batch)
    if jax.tree.structure(before) != jax.tree.structure(after):
        got = f"{jax.tree.structure(after)} instead of {jax.tree.structure(before)}"
        fail_check(
            "check_dtypes: a round keeps the structure of its state",
            got=got,
            look="return the same kind of tuple that init makes",
        )
    return record, before, after


class AbstractTrips:
    """Trips of one abstract round. Each runs one client's functions once, and records what it was
    asked for."""

    def __init__(self, record: Record, roster: Roster, batch: Batch) -> None:
        self.record = record
        self.batch = batch
        self.marker: Any = roster.dropped

    def trip(
        self,
        learner: Learner,
        aggregator: Aggregator,
        key: Any,
        broadcast: Callable[[Member], Message],
        state: PyTree,
        memory: PyTree,
        roster: Roster,
        epochs: int | None = None,
    ) -> Trip:
        """One trip, for shapes; arguments as for :class:`fedjax_sim.engine.Trips`."""
        number = len(self.record.trips) + 1
        if roster.dropped is not self.marker:
            self.record.stale_roster.append(number)
        member = jax.tree.map(lambda leaf: leaf[0], roster.members)
        message = broadcast(member)
        extra = bool(jax.tree.leaves(message.extra))
        kept = bool(jax.tree.leaves(state))
        self.record.trips.append(TripSignature(aggregator.reduce or "none", epochs, extra, kept))
        row = jax.tree.map(lambda leaf: leaf[0], memory)
        local = learner.start(key, message, row)
        after, metrics = learner.step(key, message, row, local, self.batch)
        if not _same_shapes(local, after):
            self.record.loose_local.append(number)
        upload, row, more = learner.finish(key, message, row, after)
        wide = tree.widen(
            Upload(upload.delta, upload.state, upload.extra, member.size, jnp.int32(1))
        )
        lifted, stats = aggregator.lift(key, state, wide)
        stacked = tree.tile(lifted, C) if aggregator.reduce == "stack" else lifted
        result, state, facts = aggregator.finalize(key, state, stacked, stats)
        result = result._replace(
            delta=tree.cast(result.delta, message.params),
            state=tree.cast(result.state, message.state),
        )
        table = memory if row is None else tree.tile(row, N)
        self.marker = jnp.zeros(C, bool)
        clients = {**tree.tile({**metrics, **more}, C), NONFINITE: self.marker}
        sums = {k: v for k, v in {**metrics, **more}.items() if isinstance(v, Mean)}
        outcome = Outcome({**sums, **facts}, clients)
        return Trip(result, state, table, outcome, roster._replace(dropped=self.marker))


def shown(leaf: Any) -> str:
    """Dtype and shape of a leaf, in words."""
    return f"{leaf.dtype}{list(leaf.shape)}"


def _same_shapes(a: PyTree, b: PyTree) -> bool:
    """Whether two trees have one structure, and leaves of the same shapes and dtypes."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(
        (jnp.shape(x), jnp.result_type(x)) == (jnp.shape(y), jnp.result_type(y)) for x, y in pairs
    )
