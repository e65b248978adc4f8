"""Runs a program for a number of rounds: with evaluations, checkpoints, callbacks and a display.

All of this happens on the host and does not change what a round computes: the state after round
``t`` does not depend on how rounds were grouped into calls, on evaluations, or on whether the run
was resumed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rich.console import Console

from fedjax_sim.core.errors import positive, require
from fedjax_sim.core.types import RoundState, Variables
from fedjax_sim.persistence.checkpoint import Store
from fedjax_sim.runtime.signals import graceful_stop
from fedjax_sim.simulation.callbacks import Callback, notify, until_above, until_diverged
from fedjax_sim.simulation.history import History, Row
from fedjax_sim.simulation.loop import RunContext, event_at, run_rounds, save_checkpoint
from fedjax_sim.simulation.progress import open_progress
from fedjax_sim.simulation.warnings import RunWarnings, try_write
from fedjax_sim.simulation.writers import Writer


class Result(NamedTuple):
    """The result of a run."""

    state: RoundState
    """On the devices; ``program.logical`` copies it to the host."""
    history: History
    """One row per round, with the rounds before a resumption if they were given."""
    stopped: str
    """``"finished"``, ``"interrupted"``, ``"terminated"``, or the reason of the callback that
    stopped the run."""
    seconds: float
    """Wall time of this call."""
    notes: tuple[str, ...] = ()
    """Problems that did not end the run: checkpoints and rows that could not be written, fewer
    lanes than planned."""


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
    """Runs a program for a number of rounds.

    Args:
      program: from ``make_round``.
      variables: the model to start from; ignored when resuming.
      rounds: rounds completed at the end of the run, those before a resumption included.
      seed: determines every random number of the rounds; ignored when resuming.
      evaluate: ``state -> {"test/accuracy": ...}``, as from :func:`make_evaluation`. The numbers
        become part of the row of the round, so their names must differ from the training metrics.
      evaluate_every: rounds between evaluations; the last round is always evaluated.
      rounds_per_call: rounds in one compiled program. A call is shorter where an evaluation or a
        checkpoint is due; every length is compiled once, so choose a divisor of ``evaluate_every``
        and ``checkpoint_every``.
      store: where checkpoints are saved. The last state is always saved, also after Ctrl-C; the
        store is not closed.
      checkpoint_every: rounds between checkpoints; ``None`` saves only the last state.
      metadata: JSON values that are stored with every checkpoint.
      callbacks: called between rounds; see :func:`fedjax_sim.simulation.callbacks.callback`.
      writers: write the rows to files; they are closed at the end.
      progress: whether to show the rounds.
      target: ``("test/accuracy", 0.9)`` stops the run when that metric reaches that value.
      patience: rounds without a usable result after which the run stops, see
        :func:`fedjax_sim.simulation.callbacks.until_diverged`; ``None`` never stops it.
      resume: the logical state to continue from.
      history: the rows up to that state; they are copied.
      console: where to show progress; standard error if none is given.

    Returns:
      The final state, the rows of all rounds, and why the run stopped.

    Raises:
      FedError: if a number is out of range, the store holds another run, or no row has the metric
        of ``target``.
      NonFinite: if the program rejected a round because its result is not finite; the state before
        that round was saved.

    Example:

        >>> import fedjax_sim as fs, jax
        >>> task = fs.tasks.quadratic(clients=4)
        >>> work = fs.local_work(batch_size=None, epochs=1)
        >>> algorithm = fs.fedavg(task.objective, lr=0.1)
        >>> program = fs.make_round(algorithm, fs.samplers.uniform(2), task.data.train, work)
        >>> variables = task.init(jax.random.key(0))
        >>> result = fs.simulate(program, variables, rounds=2, progress=False)
        >>> result.stopped, list(result.history.rows)
        ('finished', [1, 2])
    """
    _check_settings(rounds, evaluate_every, rounds_per_call, checkpoint_every)
    _check_target(target, evaluate)
    _check_store(store, resume)
    state = program.init(variables, seed) if resume is None else program.place(resume)
    earlier = _copy_history(history, int(state.round))
    elapsed = _start_clock(earlier.latest("seconds") or 0.0)
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        display = stack.enter_context(open_progress(rounds, int(state.round), console, progress))
        warnings = RunWarnings([], display.say)
        writers = tuple(writers)
        for writer in writers:
            stack.callback(try_write, warnings, writer.close)
        context = RunContext(
            program=program,
            rounds=rounds,
            rounds_per_call=rounds_per_call,
            evaluate=evaluate,
            evaluate_every=evaluate_every,
            store=store,
            checkpoint_every=checkpoint_every,
            metadata=metadata or {},
            callbacks=(*callbacks, *_stopping_callbacks(target, patience)),
            writers=writers,
            history=earlier,
            warnings=warnings,
            progress=display,
            elapsed=elapsed,
            stop_requested=stack.enter_context(graceful_stop(display.say)),
        )
        state, stopped = run_rounds(context, state)
        save_checkpoint(context, state, last=True)
        notify(context.callbacks, "on_run_end", event_at(context, state))
    return Result(state, earlier, stopped, time.monotonic() - begin, tuple(warnings.notes))


def _copy_history(history: History | None, upto: int) -> History:
    rows = {} if history is None else history.rows
    return History({round_: row for round_, row in rows.items() if round_ <= upto})


def _start_clock(earlier: float) -> Callable[[], float]:
    """Returns ``() -> seconds`` since now, plus the seconds of the run before a resumption."""
    begin = time.monotonic()
    return lambda: earlier + time.monotonic() - begin


def _stopping_callbacks(
    target: tuple[str, float] | None, patience: int | None
) -> tuple[Callback, ...]:
    at_target = [until_above(*target)] if target else []
    at_divergence = [until_diverged(patience)] if patience else []
    return (*at_target, *at_divergence)


def _check_settings(
    rounds: int, evaluate_every: int, rounds_per_call: int, checkpoint_every: int | None
) -> None:
    positive("rounds", rounds)
    positive("evaluate_every", evaluate_every)
    positive("rounds_per_call", rounds_per_call)
    positive("checkpoint_every", 1 if checkpoint_every is None else checkpoint_every)


def _check_target(target: tuple[str, float] | None, evaluate: Any) -> None:
    require(
        not target or evaluate is not None or "/" not in target[0],
        "a target needs an evaluation",
        got=target,
        fix="pass evaluate, or drop the target",
    )


def _check_store(store: Store | None, resume: RoundState | None) -> None:
    steps = () if store is None or resume is not None else store.steps()
    require(
        not steps,
        "the store already has checkpoints",
        got=f"rounds {steps}",
        fix="resume from one, or choose an empty folder",
    )
