"""What a caller can hang on a run: functions on the host, called between rounds."""

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
    """Returned by a slot to end the run after the round that is done; the reason becomes ``Result.stopped``."""

    reason: str


class Event(NamedTuple):
    """What a slot is told."""

    round: int
    """Rounds completed."""
    rounds: int
    """Rounds the run will have."""
    row: Row
    """This round's numbers, those of an evaluation among them."""
    history: History
    """All rows so far. To be read only."""
    state: RoundState
    """On the devices, as it is after the call that this round was part of. The next call takes its buffers: copy what is to
    be kept."""
    program: Any
    """The program that runs, for its ``logical`` and ``plan``."""
    outcome: Outcome | None = None
    """What that call reported, ``[rounds_per_call, ...]`` in every leaf, per client too; ``None`` where no round ran."""


Slot = Callable[[Event], Stop | None]


class Callback(NamedTuple):
    """Five slots, each ``event -> None`` or :class:`Stop`. Make one with :func:`callback`."""

    on_run_start: Slot
    on_round_end: Slot
    """Once per round; for rounds run in one call, one after another when the call is done."""
    on_evaluate: Slot
    on_checkpoint: Slot
    """When a checkpoint was handed over to be written."""
    on_run_end: Slot
    """When the run ended by itself, was stopped or interrupted; not when it failed."""


def nothing(event: Event) -> None:
    """A slot that does nothing."""


def callback(
    on_run_start: Slot = nothing,
    on_round_end: Slot = nothing,
    on_evaluate: Slot = nothing,
    on_checkpoint: Slot = nothing,
    on_run_end: Slot = nothing,
) -> Callback:
    """A callback of the slots that are wanted."""
    return Callback(on_run_start, on_round_end, on_evaluate, on_checkpoint, on_run_end)


def notify(callbacks: Iterable[Callback], slot: str, event: Event) -> str | None:
    """Calls one slot of every callback, and returns the reason of the first that wants to stop.

    Raises:
      FedError: where a slot returns something else than ``None`` or :class:`Stop`.
    """
    answers = [getattr(each, slot)(event) for each in callbacks]
    odd = [answer for answer in answers if not (answer is None or isinstance(answer, Stop))]
    require(
        not odd,
        f"a callback's {slot} returns nothing or Stop",
        got=odd[:1],
        fix='return None, or Stop("reason")',
    )
    return next((answer.reason for answer in answers if answer is not None), None)


def until_above(name: str, value: float) -> Callback:
    """Stops when a number has reached ``value`` or more.

    Raises:
      FedError: at the first evaluation, where no row has such a number.
    """
    return _until(name, lambda got: got >= value, f"{name} reached {value:g}")


def until_below(name: str, value: float) -> Callback:
    """Stops when a number has come down to ``value`` or less. Raises as :func:`until_above` does."""
    return _until(name, lambda got: got <= value, f"{name} came down to {value:g}")


def until_diverged(patience: int = 3) -> Callback:
    """Stops when so many rounds in a row had a training loss that is not finite, or only clients that a guard dropped."""
    positive("patience", patience)

    def check(event: Event) -> Stop | None:
        last = [
            event.history.rows.get(round_, {})
            for round_ in range(event.round - patience + 1, event.round + 1)
        ]
        since = f"for {patience} rounds up to round {event.round}"
        if not any(math.isfinite(row.get("loss", 0.0)) for row in last):
            return Stop(
                f"diverged: the training loss was not finite {since}; lower the learning rates, or look at clients' data"
            )
        if all(row.get("dropped") and not row.get("cohort") for row in last):
            return Stop(
                f"diverged: all clients were dropped {since}, because nothing finite came of them; lower the learning rates"
            )
        return None

    return callback(on_round_end=check)


def profile(folder: str | Path, first: int = 1, rounds: int = 3) -> Callback:
    """Traces some rounds with JAX's profiler, for TensorBoard's profile plugin or https://ui.perfetto.dev.

    Args:
      folder: where the trace is written.
      first: rounds of this run that go by before, 0 to see the compiling too.
      rounds: rounds that are traced at least; a call's rounds are traced together.
    """
    not_negative("first", first)
    positive("rounds", rounds)
    due = {"start": math.inf, "stop": math.inf}  # rounds; infinite where that is over, or not begun

    def begin(event: Event) -> None:
        due.update(start=event.round + first, stop=math.inf)
        step(event)

    def step(event: Event) -> None:
        if event.round < int(event.state.round):
            return  # a call's rounds are told when all of them are done
        if event.round >= due["stop"]:
            stop(event)
        elif due["start"] <= event.round < event.rounds:
            jax.profiler.start_trace(str(folder))
            due.update(start=math.inf, stop=event.round + rounds)

    def stop(event: Event) -> None:
        if due["stop"] < math.inf:
            jax.profiler.stop_trace()
            due["stop"] = math.inf

    return callback(on_run_start=begin, on_round_end=step, on_run_end=stop)


def _until(name: str, reached: Callable[[float], bool], reason: str) -> Callback:
    def check(event: Event) -> Stop | None:
        return Stop(reason) if name in event.row and reached(event.row[name]) else None

    def known(event: Event) -> None:
        names = event.history.names()
        require(
            name in names,
            "the run is to stop at a number that nobody reports",
            got=repr(name),
            fix=suggest(name, names),
        )

    return callback(on_round_end=check, on_evaluate=known)
