"""Problems that do not end a run: each is shown once, and noted in the result of the run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from fedjax_sim.engine.devices.memory_limit import FewerLanes
from fedjax_sim.persistence.checkpoint import SaveError
from fedjax_sim.simulation.history import Row
from fedjax_sim.simulation.writers import WriteError, Writer

_SHOWN_ELSEWHERE: dict[Any, Any] = {}
"""Registry of the other warnings that were shown. Python shows a warning once for each place in the
code, but forgets that wherever warnings are caught."""


class RunWarnings(NamedTuple):
    """The warnings of a run."""

    notes: list[str]
    """All of them, in order."""
    say: Callable[[str], None]
    """Shows a line to the user."""


def note_once(run_warnings: RunWarnings, text: str) -> None:
    """Shows and notes a warning, unless it was noted before."""
    if text not in run_warnings.notes:
        run_warnings.notes.append(text)
        run_warnings.say(text)


def try_write(run_warnings: RunWarnings, write: Callable[[], None]) -> bool:
    """Calls a function that writes a file; a failure becomes a warning.

    Args:
      run_warnings: where the failure is noted.
      write: ``() -> None``; raises ``SaveError`` or ``WriteError`` on failure.

    Returns:
      True if the function succeeded.
    """
    try:
        write()
    except (SaveError, WriteError) as error:
        note_once(run_warnings, str(error))
        return False
    return True


def finish_saving(
    run_warnings: RunWarnings, save: Callable[[], None], wait: Callable[[], None]
) -> None:
    """Waits for the last checkpoint, and saves it once more if that failed.

    The second attempt can succeed, because a failed save frees the space that it took.

    Args:
      run_warnings: where a second failure is noted.
      save: starts to save the last state.
      wait: returns when the save is complete; raises ``SaveError`` if it failed.
    """
    try:
        wait()
    except SaveError:
        if try_write(run_warnings, save):
            try_write(run_warnings, wait)


def write_row(run_warnings: RunWarnings, writers: Iterable[Writer], round_: int, row: Row) -> None:
    """Writes the row of a round with all writers.

    A full disk is noted once, not for every writer and every row.

    Args:
      run_warnings: where failures are noted.
      writers: the files of the run.
      round_: the round, counted from 1.
      row: its numbers.
    """
    problems = []
    for writer in writers:
        try:
            writer.write(round_, row)
        except WriteError as error:
            problems.append(str(error))
    if problems and not set(problems) & set(run_warnings.notes):
        note_once(run_warnings, problems[0])


@contextlib.contextmanager
def collect_lane_warnings(run_warnings: RunWarnings) -> Iterator[None]:
    """While open, notes every warning that the engine runs with fewer lanes; passes on the
    others."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FewerLanes)
            yield
    finally:
        for warning in caught:
            if isinstance(warning.message, FewerLanes):
                run_warnings.notes.append(str(warning.message))
                run_warnings.say(str(warning.message))
            else:
                _show_again(warning)


def _show_again(warning: warnings.WarningMessage) -> None:
    warnings.warn_explicit(
        warning.message,
        warning.category,
        warning.filename,
        warning.lineno,
        registry=_SHOWN_ELSEWHERE,
    )
