"""The loop of a run: calls of the program, and what happens between them.

A round computes the same result however rounds are grouped into calls: the loop only decides how
many rounds the next call has, and evaluates, records, saves and notifies after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Mean, Metrics, Outcome, RoundState
from fedjax_sim.persistence.checkpoint import SaveError, Store
from fedjax_sim.runtime.processes import any_process
from fedjax_sim.simulation.callbacks import Callback, Event, notify
from fedjax_sim.simulation.history import History, Row, record
from fedjax_sim.simulation.nonfinite_report import NonFinite
from fedjax_sim.simulation.progress import Progress
from fedjax_sim.simulation.warnings import (
    RunWarnings,
    collect_lane_warnings,
    finish_saving,
    try_write,
    write_row,
)
from fedjax_sim.simulation.writers import Writer

FINISHED = "finished"
"""The reason of a run that completed all of its rounds."""
MEMORY = "memory"
"""Key in a checkpoint's metadata: the description of the client memory that is kept on the host."""


class RunContext(NamedTuple):
    """Everything that the functions of the loop share, except for the state."""

    program: Any
    rounds: int
    rounds_per_call: int
    evaluate: Callable[[RoundState], Row] | None
    evaluate_every: int
    store: Store | None
    checkpoint_every: int | None
    metadata: dict[str, Any]
    callbacks: tuple[Callback, ...]
    writers: tuple[Writer, ...]
    history: History
    """The rows so far; the loop adds to it."""
    warnings: RunWarnings
    progress: Progress
    elapsed: Callable[[], float]
    """``() -> seconds`` of the whole run so far, those before a resumption included."""
    stop_requested: Callable[[], str | None]
    """``() -> reason`` after a signal of the user, else ``None``."""


def call_end(completed: int, rounds: int, rounds_per_call: int, *intervals: int | None) -> int:
    """Returns the round at which the next call ends: at the first round where something is due.

    Args:
      completed: rounds completed so far.
      rounds: rounds of the whole run.
      rounds_per_call: the largest length of a call.
      *intervals: rounds between evaluations, checkpoints and so on; ``None`` for never.

    Example:

        >>> from fedjax_sim.simulation.loop import call_end
        >>> call_end(4, 100, 10, 4, 6)
        6
    """
    due = [(completed // interval + 1) * interval for interval in intervals if interval]
    return min(rounds, completed + rounds_per_call, *due)


def metric_rows(metrics: Metrics, rounds: int) -> list[Row]:
    """Converts the metrics of a call to one row per round. Waits for the devices.

    A metric that is not one number per round, such as a histogram, is left out; callbacks see it.

    Args:
      metrics: leaves ``[rounds]``. A :class:`Mean` becomes its value, and is left out of rounds
        where its weight is 0.
      rounds: the number of rounds of the call.

    Example:

        >>> import fedjax_sim as fs, numpy as np
        >>> from fedjax_sim.simulation.loop import metric_rows
        >>> loss = fs.Mean(total=np.array([6.0, 0.0]), weight=np.array([4.0, 0.0]))
        >>> metric_rows({"loss": loss, "cohort": np.array([4, 0])}, rounds=2)
        [{'cohort': 4.0, 'loss': 1.5}, {'cohort': 0.0}]
    """
    rows: list[Row] = [{} for _ in range(rounds)]
    for name, metric in jax.device_get(metrics).items():
        totals, weights = metric if isinstance(metric, Mean) else (metric, np.ones(rounds))
        if np.shape(totals) != (rounds,):
            continue
        for row, total, weight in zip(rows, totals, weights, strict=True):
            if weight > 0:
                row[name] = float(total) / float(weight)
    return rows


def run_rounds(context: RunContext, state: RoundState) -> tuple[RoundState, str]:
    """Runs calls until all rounds are complete or there is a reason to stop.

    Args:
      context: the run.
      state: the state to start from, on the devices.

    Returns:
      The last state, and why the loop ended.

    Raises:
      NonFinite: if the program rejected a round.
    """
    completed = int(state.round)
    reason = notify(context.callbacks, "on_run_start", event_at(context, state))
    while completed < context.rounds:
        reason = any_process(reason or context.stop_requested())
        if reason:
            break
        end = _next_end(context, completed)
        with collect_lane_warnings(context.warnings):
            state, outcome, rows = _run_call(context, state, end - completed)
        reached = int(state.round)
        if reached < end:
            _record_rows(context, state, outcome, completed, rows[: reached - completed])
            save_checkpoint(context, state, last=True)
            raise NonFinite(reached + 1, context.program.find_culprits(state))
        evaluated = _evaluation_due(context, end)
        if evaluated:
            rows[-1] |= _evaluate(context, state)
        reason = _record_rows(context, state, outcome, completed, rows)
        if evaluated:
            event = event_at(context, state, end, outcome)
            evaluation_reason = notify(context.callbacks, "on_evaluate", event)
            reason = reason or evaluation_reason
        if _checkpoint_due(context, end):
            reason = save_checkpoint(context, state) or reason
        completed = end
    return state, reason or FINISHED


def _next_end(context: RunContext, completed: int) -> int:
    return call_end(
        completed,
        context.rounds,
        context.rounds_per_call,
        context.evaluate_every if context.evaluate else None,
        context.checkpoint_every if context.store else None,
    )


def _evaluation_due(context: RunContext, round_: int) -> bool:
    due = round_ % context.evaluate_every == 0 or round_ == context.rounds
    return context.evaluate is not None and due


def _checkpoint_due(context: RunContext, round_: int) -> bool:
    """True if a checkpoint is due now; the last round is saved when the loop has ended."""
    every = context.checkpoint_every
    return every is not None and round_ % every == 0 and round_ < context.rounds


def _run_call(
    context: RunContext, state: RoundState, rounds: int
) -> tuple[RoundState, Outcome, list[Row]]:
    """Runs one call of the program, and waits for its results.

    The wait is necessary: on CPU, programs that run side by side can block each other's collectives
    forever. The rounds of a call share its time equally in ``seconds``.
    """
    begin = context.elapsed()
    state, outcome = jax.block_until_ready(context.program.run(state, rounds))
    rows = metric_rows(outcome.metrics, rounds)
    seconds_per_round = (context.elapsed() - begin) / rounds
    for number, row in enumerate(rows, 1):
        row["seconds"] = round(begin + number * seconds_per_round, 3)
    return state, outcome, rows


def _evaluate(context: RunContext, state: RoundState) -> Row:
    numbers = context.evaluate(state) if context.evaluate else {}
    return {name: float(value) for name, value in numbers.items()}


def _record_rows(
    context: RunContext, state: RoundState, outcome: Outcome, completed: int, rows: list[Row]
) -> str | None:
    """Records, writes and shows the rounds of one call, oldest first.

    Args:
      context: the run.
      state: the state after the call.
      outcome: the outcome of the call.
      completed: rounds completed before the call.
      rows: the rows of its rounds.

    Returns:
      The first reason of a callback to stop, or ``None``.
    """
    reasons = []
    for round_, row in enumerate(rows, completed + 1):
        record(context.history, round_, row)
        write_row(context.warnings, context.writers, round_, row)
        context.progress.advance(round_, row)
        event = event_at(context, state, round_, outcome)
        reasons.append(notify(context.callbacks, "on_round_end", event))
    return next(filter(None, reasons), None)


def save_checkpoint(context: RunContext, state: RoundState, last: bool = False) -> str | None:
    """Starts to save the state; the last one is waited for.

    A failure becomes a warning, and this checkpoint is tried once more: the failure may have been
    that of the checkpoint before, which is reported only now.

    Args:
      context: the run.
      state: the state, on the devices.
      last: whether to wait until the checkpoint is complete.

    Returns:
      The reason of a callback to stop, or ``None``.
    """
    if context.store is None:
        return None
    store = context.store
    logical = context.program.logical(state)

    def save() -> None:
        store.save(logical, context.metadata | _save_host_memory(context, store))

    if not try_write(context.warnings, save):
        try_write(context.warnings, save)
    if last:
        finish_saving(context.warnings, save, store.wait)
    return notify(context.callbacks, "on_checkpoint", event_at(context, state))


def _save_host_memory(context: RunContext, store: Store) -> dict[str, Any]:
    """Saves the client memory that is kept on the host, and drops that of deleted checkpoints.

    Returns:
      The metadata that describes it.
    """
    memory = context.program.host_memory
    if memory is None:
        return {}
    steps = store.steps()
    try:
        memory.retain(steps)
        return {MEMORY: memory.snapshot()}
    except FedError as error:
        raise SaveError(str(error)) from error


def event_at(
    context: RunContext,
    state: RoundState,
    round_: int | None = None,
    outcome: Outcome | None = None,
) -> Event:
    """Makes the argument of callbacks.

    Args:
      context: the run.
      state: the state, on the devices.
      round_: rounds completed; by default those of the state.
      outcome: the outcome of the last call.
    """
    round_ = int(state.round) if round_ is None else round_
    return Event(
        round=round_,
        rounds=context.rounds,
        row=context.history.rows.get(round_, {}),
        history=context.history,
        state=state,
        program=context.program,
        outcome=outcome,
    )
