"""Replays one client's part of a round step by step; checks every array for NaN and infinity."""

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
from fedjax_sim.engine.work import FINISH, Client, Work, bind, stream


class Step(NamedTuple):
    """A client after one of its local steps."""

    number: int
    """Counted from 1."""
    loss: float | None
    """Mean loss of the batch; ``None`` if the learner does not report it."""
    norm: float
    """Euclidean norm of the pseudo-gradient that the client would send after this step."""
    nonfinite: tuple[str, ...]
    """Names of the arrays that are not finite: in the batch, the local state, the upload, and the
    memory that the client would keep."""


class TripTrace(NamedTuple):
    """A client's steps in one trip of the round, up to the first step with a problem."""

    client: int
    """The client's id."""
    trip: int
    """Counted from 1."""
    planned_steps: int
    """Local steps of the client in this trip."""
    steps: tuple[Step, ...]
    problem: str | None
    """The problem and where it began; ``None`` if there is none."""


class RoundParts(NamedTuple):
    """The parts that the round was made of, and the plan of the run."""

    algorithm: Algorithm
    sampler: Sampler
    local_work: LocalWork
    guard: NonFinitePolicy
    plan: Plan


class ClientInputs(NamedTuple):
    """Everything that a client receives in a trip."""

    key: Key
    member: Member
    message: Message
    memory: PyTree
    aggregator: PyTree
    """The aggregator's state."""


class ClientWork(NamedTuple):
    """The computation of a client in a trip."""

    learner: Learner
    aggregator: Aggregator
    local_work: LocalWork


class StepOutputs(NamedTuple):
    """The arrays of a step, in the order in which they are computed; or whether each is finite."""

    batch: PyTree
    local: PyTree
    upload: PyTree
    memory: PyTree
    lifted: PyTree
    statistics: PyTree


class StepReport(NamedTuple):
    """The checks of one step."""

    loss: Any
    norm: Array
    finite: StepOutputs
    """bool scalars: whether each array is finite."""


def replay(
    parts: RoundParts, data: Population | Table, state: RoundState, client: int
) -> Iterator[TripTrace]:
    """Runs a client's trips of one round again, until there is a problem.

    Args:
      parts: the parts of the round.
      data: the training examples of the whole population.
      state: the state before the round, with the memory rows of its cohort only; see
        :func:`fedjax_sim.engine.rerun.cohort_state`.
      client: the client's id.

    Yields:
      One trace for every trip in which the client has steps.

    Raises:
      FedError: if the client did not take part in the round.
    """
    parts = parts._replace(
        plan=single_device_plan(parts.plan), guard=parts.guard._replace(nonfinite="drop")
    )
    sizes = np.asarray(data.sizes if isinstance(data, Population) else data.size, np.int32)
    cohort = sampled(
        partial(sample_cohort, parts.sampler, parts.plan, parts.local_work),
        population_info(parts.local_work, jnp.asarray(sizes)),
        parts.plan,
        state,
    )
    participants = sorted(cohort.roster.id[cohort.roster.steps > 0].tolist())
    require(
        client in participants,
        "this client did not take part in the round",
        got=client,
        fix=f"choose one of {participants[:20]}",
    )
    round_inputs = supplied(cohort, data, parts.plan)
    trips = client_trips(parts, state, round_inputs, client)
    for number, (work, inputs) in enumerate(trips, 1):
        if inputs.member.steps > 0:  # 0 if the client was dropped in an earlier trip
            trace = trace_trip(parts, work, inputs, round_inputs.table, number)
            yield trace
            if trace.problem:
                return


def client_trips(
    parts: RoundParts, state: RoundState, round_inputs: RoundInputs, client: int
) -> list[tuple[ClientWork, ClientInputs]]:
    """Runs the round on one device, and records what one client computes and receives in each trip.

    Args:
      parts: the parts of the round, on one device.
      state: the state before the round, on the host.
      round_inputs: the cohort and its examples.
      client: the id of a client of the cohort.
    """
    works: list[ClientWork] = []

    def record_inputs(state: RoundState, round_inputs: RoundInputs) -> list[ClientInputs]:
        roster, _, places = round_inputs.cohort
        run_trip = make_trips(parts.plan, round_inputs.table, parts.local_work, places, parts.guard)
        recorded: list[ClientInputs] = []
        row = jnp.argmax(roster.id == client)
        slot = jnp.argmax(places.reshape(-1) == row)

        def trip(
            learner: Learner,
            aggregator: Aggregator,
            key: Key,
            broadcast: Callable,
            aggregator_state: PyTree,
            memory: PyTree,
            roster: Any,
            **options: Any,
        ) -> Trip:
            epochs = options.get("epochs")
            local_work, present = assign(parts.local_work, parts.plan.limit, roster, epochs)
            member = tree.take(present.members, row)
            own_memory = tree.take(memory, slot)
            recorded.append(
                ClientInputs(key, member, broadcast(member), own_memory, aggregator_state)
            )
            works.append(ClientWork(learner, aggregator, local_work))
            return run_trip(
                learner, aggregator, key, broadcast, aggregator_state, memory, roster, **options
            )

        key = fold_in(round_key(state.seed, state.round), ROUND)
        parts.algorithm.round(trip, key, state.algorithm, state.memory, roster)
        return recorded

    backend = make_backend(parts.plan)
    inputs = backend.inspect(record_inputs, LAYOUT).run(backend.place(state), round_inputs)
    return list(zip(works, inputs, strict=True))


def trace_trip(
    parts: RoundParts, work: ClientWork, inputs: ClientInputs, table: Table, number: int
) -> TripTrace:
    """Runs a client's steps in one trip, until one has a problem.

    Args:
      parts: the parts of the round, on one device.
      work: the client's computation.
      inputs: everything that the client receives.
      table: the cohort's examples.
      number: the number of the trip, counted from 1.
    """
    start, step = compile_client(parts, work, table)
    client, local = start(inputs)
    planned_steps = int(inputs.member.steps)
    steps: list[Step] = []
    problem = _input_problem(inputs)
    while problem is None and len(steps) < planned_steps:
        k = jnp.int32(len(steps))
        next_local, report = step(inputs, client, local, k)
        steps.append(_step_of(report, len(steps) + 1))
        problem = step_problem(steps[-1], planned_steps, parts.guard)
        computed = steps[-1].nonfinite and not steps[-1].nonfinite[0].startswith("batch")
        if computed:
            problem = f"{problem}{find_operation(step, inputs, client, local, k)}"
        local = next_local
    return TripTrace(int(inputs.member.id), number, planned_steps, tuple(steps), problem)


def compile_client(parts: RoundParts, work: ClientWork, table: Table) -> tuple[Callable, Callable]:
    """Compiles the functions of one client.

    Args:
      parts: the parts of the round, on one device.
      work: the client's computation.
      table: the cohort's examples.

    Returns:
      ``inputs -> (client, local)`` and ``(inputs, client, local, k) -> (local, report)``.
    """
    limit = parts.plan.limit
    bound = most_steps(work.local_work, limit)

    def bind_inputs(inputs: ClientInputs) -> Work:
        return bind(
            work.learner,
            work.aggregator,
            fold_in(inputs.key, 0),
            lambda member: inputs.message,
            inputs.aggregator,
            table,
            work.local_work,
            limit,
            bound,
            parts.guard,
        )

    def start(inputs: ClientInputs) -> tuple[Client, PyTree]:
        client = bind_inputs(inputs).enrol(inputs.member)
        return client, bind_inputs(inputs).start(client, inputs.memory)

    def step(
        inputs: ClientInputs, client: Client, local: PyTree, k: Array
    ) -> tuple[PyTree, StepReport]:
        bound_work = bind_inputs(inputs)
        indices = bound_work.draw(client, k)
        batch = fetch(table, indices)
        local, metrics = bound_work.step(client, inputs.memory, local, k, indices)
        upload, memory, _ = work.learner.finish(
            stream(client, FINISH), inputs.message, inputs.memory, local
        )
        finished = bound_work.finish(client, inputs.memory, local)
        examples = {"x": batch.x, "y": batch.y}
        outputs = StepOutputs(
            batch=tree.where(batch.mask, examples, tree.zeros_like(examples)),
            local=local,
            upload=upload,
            memory=memory,
            lifted=finished.upload,
            statistics=finished.stats,
        )
        flags = jax.tree.map(finite, outputs)
        return local, StepReport(metrics.get("loss"), tree.norm(upload.delta), flags)

    return jax.jit(start), jax.jit(step)


def nonfinite_names(flags: PyTree) -> tuple[str, ...]:
    """Returns the names of the leaves whose flag is false, in order.

    Args:
      flags: a tree of bools, such as whether each array is finite.

    Example:

        >>> from fedjax_sim.simulation.replay import nonfinite_names
        >>> nonfinite_names({"bias": True, "kernel": False})
        ('kernel',)
    """
    leaves = jax.tree_util.tree_leaves_with_path(flags)
    return tuple(tree.name(path) for path, flag in leaves if not flag)


def step_problem(step: Step, planned_steps: int, guard: NonFinitePolicy) -> str | None:
    """Returns a sentence about the problem after a step, or ``None`` if there is none.

    Args:
      step: the client after the step.
      planned_steps: local steps of the client in this trip.
      guard: its ``max_norm`` bounds the norm of the pseudo-gradient.

    Example:

        >>> from fedjax_sim.engine.nonfinite import guard
        >>> from fedjax_sim.simulation.replay import Step, step_problem
        >>> step_problem(Step(3, 0.5, norm=1.0, nonfinite=("batch.x",)), 6, guard())
        'batch.x is not finite after step 3 of 6'
    """
    position = f"after step {step.number} of {planned_steps}"
    if step.nonfinite:
        return f"{step.nonfinite[0]} is not finite {position}"
    if guard.max_norm is not None and step.norm > guard.max_norm:
        bound = f"above max_norm = {guard.max_norm:g}"
        return f"the pseudo-gradient's norm is {step.norm:.4g} {position}, {bound}"
    return None


def find_operation(step: Callable, *arguments: Any) -> str:
    """Finds the first operation of a step that computes a NaN or an infinity.

    NaN is searched first, because some models use an infinity on purpose.

    Args:
      step: a jitted function.
      *arguments: its arguments.

    Returns:
      JAX's message in brackets, or ``""`` if JAX does not find the operation.
    """
    for check in (jax.debug_nans, jax.debug_infs):
        try:
            with (
                check(True),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                jax.block_until_ready(step(*arguments))
        except FloatingPointError as error:
            return f" ({str(error).splitlines()[0].rstrip('.')})"
    return ""


def _input_problem(inputs: ClientInputs) -> str | None:
    received = {"memory": inputs.memory, "message": inputs.message}
    names = nonfinite_names(jax.tree.map(finite, received))
    return f"{names[0]} was not finite when the client received it" if names else None


def _step_of(report: StepReport, number: int) -> Step:
    loss = float(report.loss.value) if isinstance(report.loss, Mean) else None
    return Step(number, loss, float(report.norm), nonfinite_names(report.finite))
