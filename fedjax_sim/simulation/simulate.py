"""The loop around the round: run, evaluate, record, save, show, and stop for a reason.

All of it is on the host and none of it changes what a round computes: the state after round ``t`` does not depend on how rounds
were grouped into calls, on evaluations, or on the run having been resumed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from fedjax_sim.core.errors import FedError, positive, require
from fedjax_sim.core.types import Mean, Metrics, Outcome, RoundState, Variables
from fedjax_sim.persistence.checkpoint import SaveError, Store
from fedjax_sim.runtime.processes import any_process
from fedjax_sim.runtime.signals import graceful_stop
from fedjax_sim.simulation.callbacks import Callback, Event, notify, until_above, until_diverged
from fedjax_sim.simulation.history import History, Row, Writer, record
from fedjax_sim.simulation.nonfinite_report import NonFinite
from fedjax_sim.simulation.progress import Progress, open_progress
from fedjax_sim.simulation.warnings import (
    Trouble,
    collect_lane_warnings,
    finish,
    try_write,
    write_row,
)

FINISHED = "finished"
MEMORY = "memory"
"""Key in a checkpoint's metadata of what describes the clients' memory, where the host keeps it."""


class Result(NamedTuple):
    """What a run leaves behind."""

    state: RoundState
    """On the devices; ``program.logical`` brings it to the host."""
    history: History
    """One row per round, those before a resumption too where they were given."""
    stopped: str
    """``"finished"``, ``"interrupted"``, ``"terminated"``, or the reason of the callback that stopped the run."""
    seconds: float
    """Wall time of this call."""
    notes: tuple[str, ...] = ()
    """What went wrong without ending the run: checkpoints and rows that could not be written, lanes that did not fit."""


class Run(NamedTuple):
    """What stays the same through a run."""

    program: Any
    rounds: int
    per_call: int
    evaluate: Callable[[RoundState], Row] | None
    evaluate_every: int
    store: Store | None
    checkpoint_every: int | None
    metadata: dict[str, Any]
    callbacks: tuple[Callback, ...]
    writers: tuple[Writer, ...]
    history: History
    notes: list[str]
    clock: Callable[[], float]
    """``() -> seconds`` of the whole run so far, those before a resumption too."""


def simulate(
    program: Any,
    variables: Variables | None,
    *,
    rounds: int,
    seed: int = 0,
    evaluate: Callable[[RoundState], Row] | None = None,
    evaluate_every: int = 10,
    rounds_per_call: int = 1,
    store: Store | None = None,
    checkpoint_every: int | None = 50,
    metadata: dict[str, Any] | None = None,
    callbacks: Iterable[Callback] = (),
    writers: Iterable[Writer] = (),
    progress: bool = True,
    target: tuple[str, float] | None = None,
    patience: int | None = 3,
    resume: RoundState | None = None,
    history: History | None = None,
    console: Console | None = None,
) -> Result:
    """Runs a program for so many rounds.

    Args:
      program: what ``make_round`` made.
      variables: the model to start from; not looked at when resuming.
      rounds: rounds completed at the end, those before a resumption included.
      seed: every random number of the rounds follows from it; not looked at when resuming.
      evaluate: ``state -> {"test/accuracy": ...}``; its names belong into the row of the round, so none may be a training metric.
      evaluate_every: rounds between evaluations; the last round is always evaluated.
      rounds_per_call: rounds in one compiled program. Calls are shortened where an evaluation or a checkpoint is due; every
        length is compiled once, so one that divides ``evaluate_every`` and ``checkpoint_every`` is best.
      store: where checkpoints go; waited for, but not closed. The last state is always saved, also after Ctrl-C.
      checkpoint_every: rounds between checkpoints; ``None`` for the last only.
      metadata: kept with every checkpoint, JSON.
      callbacks: see :func:`fedjax_sim.simulation.callbacks.callback`.
      writers: where rows go; closed at the end.
      progress: whether to show the rounds.
      target: ``("test/accuracy", 0.9)`` stops the run when that number reaches that value.
      patience: see :func:`fedjax_sim.simulation.callbacks.until_diverged`; ``None`` goes on for ever.
      resume: a logical state to continue from.
      history: the rows up to it.
      console: where to show; standard error if none is given.

    Raises:
      FedError: for a number out of range, a store that holds another run, a target that nobody reports; as :class:`NonFinite` for a
        round that the program's guard refused, when the state before it was saved.
    """
    _check(rounds, evaluate_every, rounds_per_call, checkpoint_every)
    require(
        not target or evaluate is not None or "/" not in target[0],
        "a target needs an evaluation",
        got=target,
        fix="pass evaluate, or drop the target",
    )
    held = () if store is None or resume is not None else store.steps()
    require(
        not held,
        "the store already has checkpoints",
        got=f"rounds {held}",
        fix="resume from one, or choose an empty folder",
    )
    state = program.init(variables, seed) if resume is None else program.place(resume)
    past = _past(history, int(state.round))
    run = Run(
        program=program,
        rounds=rounds,
        per_call=rounds_per_call,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        store=store,
        checkpoint_every=checkpoint_every,
        metadata=metadata or {},
        callbacks=(
            *callbacks,
            *([until_above(*target)] if target else []),
            *([until_diverged(patience)] if patience else []),
        ),
        writers=tuple(writers),
        history=past,
        notes=[],
        clock=_clock(past.latest("seconds") or 0.0),
    )
    return _shown(run, state, console, progress)


def chunk_end(at: int, rounds: int, per_call: int, *everies: int | None) -> int:
    """The round at which a call from round ``at`` ends: soon enough for all that is due, and at the end."""
    due = [(at // every + 1) * every for every in everies if every]
    return min(rounds, at + per_call, *due)


def rows_of(metrics: Metrics, rounds: int) -> list[Row]:
    """One row per round from metrics with leaves ``[rounds]``. Waits for them.

    A :class:`Mean` becomes its value and is left out of rounds where nothing was weighed; what is not one number per round (a
    histogram) is left to callbacks.
    """
    host = jax.device_get(metrics)
    rows: list[Row] = [{} for _ in range(rounds)]
    for name, metric in host.items():
        total, weight = metric if isinstance(metric, Mean) else (metric, np.ones(rounds))
        if np.shape(total) != (rounds,):
            continue
        for row, part, whole in zip(rows, total, weight, strict=True):
            if whole > 0:
                row[name] = float(part) / float(whole)
    return rows


def _shown(run: Run, state: RoundState, console: Console | None, progress: bool) -> Result:
    """The loop, with everything around it that must be put away afterwards."""
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        show = open_progress(run.rounds, int(state.round), console, progress)
        stack.callback(show.close)
        for writer in run.writers:
            stack.callback(try_write, Trouble(run.notes, show.say), writer.close)
        asked = stack.enter_context(graceful_stop(show.say))
        state, stopped = _loop(run, state, show, asked)
        _save(run, state, show, last=True)
        notify(run.callbacks, "on_run_end", _event(run, state))
    return Result(state, run.history, stopped, time.monotonic() - begun, tuple(run.notes))


def _loop(
    run: Run, state: RoundState, show: Progress, asked: Callable[[], str | None]
) -> tuple[RoundState, str]:
    at = int(state.round)
    reason = notify(run.callbacks, "on_run_start", _event(run, state))
    while at < run.rounds and not (reason := any_process(reason or asked())):
        end = chunk_end(
            at,
            run.rounds,
            run.per_call,
            run.evaluate and run.evaluate_every,
            run.store and run.checkpoint_every,
        )
        with collect_lane_warnings(Trouble(run.notes, show.say)):
            state, outcome, rows = _call(run, state, end - at)
        if (came := int(state.round)) < end:
            _record(run, state, outcome, at, rows[: came - at], show, evaluated=False)
            _save(run, state, show, last=True)
            raise NonFinite(came + 1, run.program.find_culprits(state))
        due = run.evaluate is not None and (end % run.evaluate_every == 0 or end == run.rounds)
        rows[-1] |= _evaluated(run, state) if due else {}
        reason = _record(run, state, outcome, at, rows, show, due)
        if run.checkpoint_every and end % run.checkpoint_every == 0 and end < run.rounds:
            reason = _save(run, state, show) or reason
        at = end
    return state, reason or FINISHED


def _call(run: Run, state: RoundState, rounds: int) -> tuple[RoundState, Outcome, list[Row]]:
    """One call of the program, waited for: on CPU, programs that run side by side can wait for each other's collectives forever.

    ``seconds`` of rounds within a call lie evenly between its begin and its end.
    """
    begun = run.clock()
    state, outcome = jax.block_until_ready(run.program.run(state, rounds))
    rows = rows_of(outcome.metrics, rounds)
    share = (run.clock() - begun) / rounds
    for number, row in enumerate(rows, 1):
        row["seconds"] = round(begun + number * share, 3)
    return state, outcome, rows


def _evaluated(run: Run, state: RoundState) -> Row:
    numbers = run.evaluate(state) if run.evaluate else {}
    return {name: float(value) for name, value in numbers.items()}


def _record(
    run: Run,
    state: RoundState,
    outcome: Outcome,
    at: int,
    rows: list[Row],
    show: Progress,
    evaluated: bool,
) -> str | None:
    """Writes and tells the rounds of one call, oldest first. Returns the first reason to stop."""
    reasons = []
    for number, row in enumerate(rows, at + 1):
        record(run.history, number, row)
        write_row(Trouble(run.notes, show.say), run.writers, number, row)
        show.advance(number, row)
        reasons.append(notify(run.callbacks, "on_round_end", _event(run, state, number, outcome)))
    if evaluated:
        reasons.append(
            notify(run.callbacks, "on_evaluate", _event(run, state, at + len(rows), outcome))
        )
    return next(filter(None, reasons), None)


def _save(run: Run, state: RoundState, show: Progress, last: bool = False) -> str | None:
    """Hands the state to the store. A checkpoint that could not be written is said and noted, and this one tried once more."""
    if run.store is None:
        return None
    store, trouble, logical = run.store, Trouble(run.notes, show.say), run.program.logical(state)

    def save() -> None:
        store.save(logical, run.metadata | _remembered(run))

    if not try_write(trouble, save):  # that may have been about the save before
        try_write(trouble, save)
    if last:
        finish(trouble, save, store.wait)
    return notify(run.callbacks, "on_checkpoint", _event(run, state))


def _remembered(run: Run) -> dict[str, Any]:
    """What clients remember, on disk where the host keeps it, and described; that of checkpoints which are gone goes, too."""
    if run.program.host_memory is None or run.store is None:
        return {}
    committed = run.store.steps()
    try:
        run.program.host_memory.retain(committed)
        return {MEMORY: run.program.host_memory.snapshot()}
    except FedError as error:
        raise SaveError(str(error)) from error


def _event(
    run: Run, state: RoundState, round_: int | None = None, outcome: Outcome | None = None
) -> Event:
    at = int(state.round) if round_ is None else round_
    return Event(
        at, run.rounds, run.history.rows.get(at, {}), run.history, state, run.program, outcome
    )


def _past(history: History | None, upto: int) -> History:
    """The caller's rows as far as the state goes, in a record of our own."""
    rows = {} if history is None else history.rows
    return History({round_: row for round_, row in rows.items() if round_ <= upto})


def _clock(earlier: float) -> Callable[[], float]:
    begun = time.monotonic()
    return lambda: earlier + time.monotonic() - begun


def _check(
    rounds: int, evaluate_every: int, rounds_per_call: int, checkpoint_every: int | None
) -> None:
    positive("rounds", rounds)
    positive("evaluate_every", evaluate_every)
    positive("rounds_per_call", rounds_per_call)
    positive("checkpoint_every", 1 if checkpoint_every is None else checkpoint_every)
