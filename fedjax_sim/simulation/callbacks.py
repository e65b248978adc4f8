"""Callbacks: functions on the host that a run calls between rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fedjax_sim.core.errors import not_negative, positive, require, suggest
from fedjax_sim.core.types import Outcome, RoundState
from fedjax_sim.simulation.history import History, Row


class Stop(NamedTuple):
    """Returned by a function of a callback to end the run after the current round.

    Example:

        >>> import fedjax_sim as fs
        >>> fs.Stop("enough rounds").reason
        'enough rounds'
    """

    reason: str
    """Becomes ``Result.stopped``."""


class Event(NamedTuple):
    """The argument of a callback's functions."""

    round: int
    """Rounds completed."""
    rounds: int
    """Rounds of the whole run."""
    row: Row
    """The numbers of this round, those of an evaluation among them."""
    history: History
    """All rows so far; read only."""
    state: RoundState
    """On the devices, as it is after the call that this round was part of. The next call reuses its
    buffers: copy what you keep."""
    program: Any
    """The program of the run, for its ``logical`` and ``plan``."""
    outcome: Outcome | None = None
    """Metrics of that call, ``[rounds_per_call, ...]`` in every leaf, also per client; ``None``
    where no round ran."""


Slot = Callable[[Event], Stop | None]
"""``event -> None``, or a :class:`Stop` to end the run."""


class Callback(NamedTuple):
    """Five functions ``event -> None`` or :class:`Stop`. Make one with :func:`callback`."""

    on_run_start: Slot
    on_round_end: Slot
    """Called once per round; for the rounds of one call, in order, when the call is complete."""
    on_evaluate: Slot
    on_checkpoint: Slot
    """Called when a checkpoint begins to be written."""
    on_run_end: Slot
    """Called when a run is finished, stopped or interrupted; not when it failed."""


def do_nothing(event: Event) -> None:
    """The default function of a callback."""


def callback(
    on_run_start: Slot = do_nothing,
    on_round_end: Slot = do_nothing,
    on_evaluate: Slot = do_nothing,
    on_checkpoint: Slot = do_nothing,
    on_run_end: Slot = do_nothing,
) -> Callback:
    """Makes a callback of functions ``event -> None`` or :class:`Stop`.

    Args:
      on_run_start: called once, before the first round.
      on_round_end: called after every round; for the rounds of one call, when the call is complete.
      on_evaluate: called after every evaluation.
      on_checkpoint: called when a checkpoint begins to be written.
      on_run_end: called when the run is finished, stopped or interrupted; not when it failed.

    Example:

        >>> import fedjax_sim as fs
        >>> def stop_early(event):
        ...     return fs.Stop("low loss") if event.row["loss"] < 0.1 else None
        >>> early = fs.callback(on_round_end=stop_early)
        >>> early.on_round_end is stop_early
        True
    """
    return Callback(on_run_start, on_round_end, on_evaluate, on_checkpoint, on_run_end)


def notify(callbacks: Iterable[Callback], slot: str, event: Event) -> str | None:
    """Calls one function of every callback.

    Args:
      callbacks: the callbacks, called in order; all are called, also after one that stops the run.
      slot: name of the function, such as ``"on_round_end"``.
      event: its argument.

    Returns:
      The first reason to stop, or ``None``.

    Raises:
      FedError: if a function returns anything but ``None`` or :class:`Stop`.
    """
    answers = [getattr(each, slot)(event) for each in callbacks]
    invalid = [answer for answer in answers if not (answer is None or isinstance(answer, Stop))]
    require(
        not invalid,
        f"a callback's {slot} returns None or Stop",
        got=invalid[:1],
        fix='return None, or Stop("reason")',
    )
    return next((answer.reason for answer in answers if answer is not None), None)


def until_above(name: str, value: float) -> Callback:
    """Stops the run when a metric reaches a value from below.

    Args:
      name: name of the metric, such as ``"test/accuracy"``.
      value: the run stops when the metric is at least this value.

    Raises:
      FedError: at the first evaluation, if no row has the metric.

    Example:

        >>> import fedjax_sim as fs
        >>> from fedjax_sim.simulation.callbacks import Event, until_above
        >>> rows = {1: {"test/accuracy": 0.92}}
        >>> event = Event(1, 10, rows[1], fs.History(rows), state=None, program=None)
        >>> until_above("test/accuracy", 0.9).on_round_end(event)
        Stop(reason='test/accuracy reached 0.9')
    """
    return _until(name, lambda latest: latest >= value, f"{name} reached {value:g}")


def until_below(name: str, value: float) -> Callback:
    """Stops the run when a metric reaches a value from above.

    Args:
      name: name of the metric, such as ``"test/loss"``.
      value: the run stops when the metric is at most this value.

    Raises:
      FedError: at the first evaluation, if no row has the metric.

    Example:

        >>> import fedjax_sim as fs
        >>> from fedjax_sim.simulation.callbacks import Event, until_below
        >>> rows = {1: {"loss": 0.4}}
        >>> event = Event(1, 10, rows[1], fs.History(rows), state=None, program=None)
        >>> until_below("loss", 0.5).on_round_end(event)
        Stop(reason='loss came down to 0.5')
    """
    return _until(name, lambda latest: latest <= value, f"{name} came down to {value:g}")


def until_diverged(patience: int = 3) -> Callback:
    """Stops the run after several rounds without a usable result.

    Args:
      patience: rounds in a row whose training loss is not finite, or whose clients were all dropped
        because their results were not finite.

    Raises:
      FedError: if ``patience`` is not positive.

    Example:

        >>> import fedjax_sim as fs
        >>> from fedjax_sim.simulation.callbacks import Event, until_diverged
        >>> rows = {1: {"loss": float("nan")}, 2: {"loss": float("inf")}}
        >>> event = Event(2, 10, rows[2], fs.History(rows), state=None, program=None)
        >>> until_diverged(patience=2).on_round_end(event).reason
        'diverged: the training loss was not finite for 2 rounds up to round 2; ...'
        >>> until_diverged(patience=3).on_round_end(event)
    """
    positive("patience", patience)

    def check(event: Event) -> Stop | None:
        recent = range(event.round - patience + 1, event.round + 1)
        rows = [event.history.rows.get(round_, {}) for round_ in recent]
        period = f"for {patience} rounds up to round {event.round}"
        if not any(math.isfinite(row.get("loss", 0.0)) for row in rows):
            return Stop(
                f"diverged: the training loss was not finite {period}; lower the learning rates, "
                "or check the data of the clients"
            )
        if all(row.get("dropped") and not row.get("cohort") for row in rows):
            return Stop(
                f"diverged: all clients were dropped {period}, because their results were not "
                "finite; lower the learning rates"
            )
        return None

    return callback(on_round_end=check)


def profile(folder: str | Path, first: int = 1, rounds: int = 3) -> Callback:
    """Traces some rounds with JAX's profiler, for TensorBoard or https://ui.perfetto.dev.

    Args:
      folder: where the trace is written.
      first: rounds of this run before the trace begins; 0 to trace the compilation too.
      rounds: the least number of rounds to trace; the rounds of one call are traced together.

    Raises:
      FedError: if ``first`` is negative, or ``rounds`` not positive.

    Example:

        >>> from fedjax_sim.simulation.callbacks import Callback, profile
        >>> isinstance(profile("traces", first=5, rounds=2), Callback)
        True
    """
    not_negative("first", first)
    positive("rounds", rounds)
    profiler = _Profiler(str(folder), first, rounds)
    return callback(
        on_run_start=profiler.start, on_round_end=profiler.step, on_run_end=profiler.stop
    )


class _Profiler:
    """The trace of one run: waiting to begin, running, or complete."""

    def __init__(self, folder: str, first: int, rounds: int) -> None:
        self._folder = folder
        self._first = first
        self._rounds = rounds
        self._begin_round = math.inf
        self._end_round = math.inf

    def start(self, event: Event) -> None:
        self._begin_round = event.round + self._first
        self._end_round = math.inf
        self.step(event)

    def step(self, event: Event) -> None:
        if event.round < int(event.state.round):
            return  # the events of a call come when all of its rounds are complete
        if event.round >= self._end_round:
            self._end()
        elif self._begin_round <= event.round < event.rounds:
            jax.profiler.start_trace(self._folder)
            self._begin_round = math.inf
            self._end_round = event.round + self._rounds

    def stop(self, _: Event) -> None:
        self._end()

    def _end(self) -> None:
        if self._end_round < math.inf:
            jax.profiler.stop_trace()
            self._end_round = math.inf


def _until(name: str, reached: Callable[[float], bool], reason: str) -> Callback:
    def check_value(event: Event) -> Stop | None:
        return Stop(reason) if name in event.row and reached(event.row[name]) else None

    def check_name(event: Event) -> None:
        names = event.history.names()
        require(
            name in names,
            "the run should stop at a metric that is not reported",
            got=repr(name),
            fix=suggest(name, names),
        )

    return callback(on_round_end=check_value, on_evaluate=check_name)
