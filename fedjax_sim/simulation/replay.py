"""A client's part in a round, run again step by step, with every number looked at."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.random import fold_in

from fedjax_sim.core import tree
from fedjax_sim.core.errors import require
from fedjax_sim.core.types import (
    Aggregator,
    Algorithm,
    Array,
    Key,
    Learner,
    Mean,
    Member,
    Message,
    PyTree,
    RoundState,
    Sampler,
    Trip,
)
from fedjax_sim.data.batching import LocalWork, fetch, most_steps, population_info
from fedjax_sim.data.population import Population, Table
from fedjax_sim.engine import Plan, make_trips
from fedjax_sim.engine.devices.backends import make_backend
from fedjax_sim.engine.host.examples import LAYOUT, RoundInputs
from fedjax_sim.engine.nonfinite import NonFinitePolicy, finite
from fedjax_sim.engine.rerun import sampled, single_device_plan, supplied
from fedjax_sim.engine.round import ROUND, round_key, sample_cohort
from fedjax_sim.engine.trip import assign
from fedjax_sim.engine.work import FINISH, Client, bind, stream


class Step(NamedTuple):
    """A client after one of its local steps."""

    number: int
    """From 1."""
    loss: float | None
    norm: float
    """Euclidean norm of the pseudo-gradient that it would send now."""
    odd: tuple[str, ...]
    """Names of what is not finite: parts of the batch, of the local state, of what it would send and remember."""


class TripTrace(NamedTuple):
    """A client's part in one trip of the round, up to the first step at which something is wrong."""

    client: int
    trip: int
    """From 1."""
    of: int
    """Local steps that it was to take."""
    steps: tuple[Step, ...]
    found: str | None
    """What is wrong, and since when."""


class Parts(NamedTuple):
    """What the round was made of, and the plan of the run."""

    algorithm: Algorithm
    sampler: Sampler
    local_work: LocalWork
    guard: NonFinitePolicy
    plan: Plan


class ClientInputs(NamedTuple):
    """What a client is given in a trip."""

    key: Key
    member: Member
    message: Message
    memory: PyTree
    aggregator: PyTree
    """The aggregator's state."""


class ClientWork(NamedTuple):
    """What it is to do with that."""

    learner: Learner
    aggregator: Aggregator
    local_work: LocalWork


def replay(
    parts: Parts, data: Population | Table, state: RoundState, client: int
) -> Iterator[TripTrace]:
    """A client's passages through the round after a state, until something is wrong.

    Args:
      parts: see there.
      data: of everybody.
      state: from :func:`fedjax_sim.engine.rerun.cut`.
      client: its id.

    Raises:
      FedError: where it has no part in that round.
    """
    parts = parts._replace(
        plan=single_device_plan(parts.plan), guard=parts.guard._replace(nonfinite="drop")
    )
    sizes = np.asarray(data.sizes if isinstance(data, Population) else data.size, np.int32)
    facts = population_info(parts.local_work, jnp.asarray(sizes))
    chosen = sampled(
        partial(sample_cohort, parts.sampler, parts.plan, parts.local_work),
        facts,
        parts.plan,
        state,
    )
    cohort = sorted(chosen.roster.id[chosen.roster.steps > 0].tolist())
    require(
        client in cohort,
        "this client has no part in the round",
        got=client,
        fix=f"choose one of {cohort[:20]}",
    )
    supply = supplied(chosen, data, parts.plan)
    for number, (errand, visit) in enumerate(visits(parts, state, supply, client), 1):
        if visit.member.steps > 0:  # it may be lost since an earlier trip
            passage = walk(parts, errand, visit, supply.table, number)
            yield passage
            if passage.found:
                return


def visits(
    parts: Parts, state: RoundState, supply: RoundInputs, client: int
) -> list[tuple[ClientWork, ClientInputs]]:
    """What a client is given in every trip of the round, which is run as far as that takes."""
    errands: list[ClientWork] = []

    def look(state: RoundState, supply: RoundInputs) -> list[ClientInputs]:
        roster, _, places = supply.cohort
        trips, seen = (
            make_trips(parts.plan, supply.table, parts.local_work, places, parts.guard),
            [],
        )
        row = jnp.argmax(roster.id == client)
        slot = jnp.argmax(places.reshape(-1) == row)

        def trip(
            learner: Learner,
            aggregator: Aggregator,
            key: Key,
            broadcast: Callable,
            kept: PyTree,
            memory: PyTree,
            crew: Any,
            **more: Any,
        ) -> Trip:
            homework, present = assign(parts.local_work, parts.plan.limit, crew, more.get("epochs"))
            member = tree.take(present.members, row)
            seen.append(ClientInputs(key, member, broadcast(member), tree.take(memory, slot), kept))
            errands.append(ClientWork(learner, aggregator, homework))
            return trips(learner, aggregator, key, broadcast, kept, memory, crew, **more)

        key = fold_in(round_key(state.seed, state.round), ROUND)
        parts.algorithm.round(trip, key, state.algorithm, state.memory, roster)
        return seen

    backend = make_backend(parts.plan)
    seen = backend.inspect(look, LAYOUT).run(backend.place(state), supply)
    return list(zip(errands, seen, strict=True))


class StepOutputs(NamedTuple):
    """Whatever a client leaves behind after a step, in the order in which it comes about; or whether each leaf of it is finite."""

    batch: PyTree
    local: PyTree
    upload: PyTree
    memory: PyTree
    lifted: PyTree
    statistics: PyTree


class StepReport(NamedTuple):
    """What was seen of a step."""

    loss: Any
    norm: Array
    whole: StepOutputs


def walk(
    parts: Parts, errand: ClientWork, visit: ClientInputs, table: Table, number: int
) -> TripTrace:
    """Step by step, until something is wrong or all is done."""
    start, step = life(parts, errand, table)
    client, local = start(visit)
    given = odd(jax.tree.map(finite, {"memory": visit.memory, "message": visit.message}))
    of, steps, found = (
        int(visit.member.steps),
        [],
        f"{given[0]} was not finite when it was given to the client" if given else None,
    )
    while found is None and len(steps) < of:
        k = jnp.int32(len(steps))
        after, seen = step(visit, client, local, k)
        mean = seen.loss.value if isinstance(seen.loss, Mean) else None
        steps.append(
            Step(
                len(steps) + 1,
                None if mean is None else float(mean),
                float(seen.norm),
                odd(seen.whole),
            )
        )
        found = wrong(steps[-1], of, parts.guard)
        if steps[-1].odd and not steps[-1].odd[0].startswith("batch"):
            found = f"{found}{operation(step, visit, client, local, k)}"
        local = after
    return TripTrace(int(visit.member.id), number, of, tuple(steps), found)


def life(parts: Parts, errand: ClientWork, table: Table) -> tuple[Callable, Callable]:
    """``visit -> (client, local)`` and ``(visit, client, local, k) -> (local, seen)``."""
    limit = parts.plan.limit
    bound = most_steps(errand.local_work, limit)

    def work(visit: ClientInputs) -> Any:
        key, message = fold_in(visit.key, 0), lambda member: visit.message
        return bind(
            errand.learner,
            errand.aggregator,
            key,
            message,
            visit.aggregator,
            table,
            errand.local_work,
            limit,
            bound,
            parts.guard,
        )

    def start(visit: ClientInputs) -> tuple[Client, PyTree]:
        client = work(visit).enrol(visit.member)
        return client, work(visit).start(client, visit.memory)

    def step(
        visit: ClientInputs, client: Client, local: PyTree, k: Array
    ) -> tuple[PyTree, StepReport]:
        drawn = work(visit).draw(client, k)
        batch = fetch(table, drawn)
        local, metrics = work(visit).step(client, visit.memory, local, k, drawn)
        upload, memory, _ = errand.learner.finish(
            stream(client, FINISH), visit.message, visit.memory, local
        )
        left = work(visit).finish(client, visit.memory, local)
        examples = {"x": batch.x, "y": batch.y}
        behind = StepOutputs(
            tree.where(batch.mask, examples, tree.zeros_like(examples)),
            local,
            upload,
            memory,
            left.upload,
            left.stats,
        )
        return local, StepReport(
            metrics.get("loss"), tree.norm(upload.delta), jax.tree.map(finite, behind)
        )

    return jax.jit(start), jax.jit(step)


def odd(whole: PyTree) -> tuple[str, ...]:
    """Names of the leaves that are not finite, in order, from a tree of flags."""
    return tuple(
        tree.name(path) for path, flag in jax.tree_util.tree_leaves_with_path(whole) if not flag
    )


def wrong(step: Step, of: int, guard: NonFinitePolicy) -> str | None:
    """What is wrong after a step, in words."""
    if step.odd:
        return f"{step.odd[0]} is not finite after step {step.number} of {of}"
    if guard.max_norm is not None and step.norm > guard.max_norm:
        return f"the pseudo-gradient's norm is {step.norm:.4g} after step {step.number} of {of}, above max_norm = {guard.max_norm:g}"
    return None


def operation(step: Callable, *arguments: Any) -> str:
    """Which operation of a step gives a NaN or an infinity first, in words; nothing where that cannot be said."""
    for watch in (
        jax.debug_nans,
        jax.debug_infs,
    ):  # in this order, for some models use an infinity on purpose
        try:
            with (
                watch(True),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                jax.block_until_ready(step(*arguments))
        except FloatingPointError as error:
            return f" ({str(error).splitlines()[0].rstrip('.')})"
    return ""
