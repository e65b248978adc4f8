"""What goes wrong without ending a run: it is said and noted, once, and the run goes on."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from fedjax_sim.engine.devices.memory_limit import FewerLanes
from fedjax_sim.persistence.checkpoint import SaveError
from fedjax_sim.simulation.history import Row, WriteError, Writer

_TOLD: dict[Any, Any] = {}
"""Which warnings of others were passed on: Python says each once for a place, and forgets that where warnings are caught."""


class Trouble(NamedTuple):
    """Where it goes."""

    notes: list[str]
    """All of it, in order."""
    say: Callable[[str], None]
    """Shows a line to the user."""


def note_once(trouble: Trouble, text: str) -> None:
    """Says and notes something that was not noted yet."""
    if text not in trouble.notes:
        trouble.notes.append(text)
        trouble.say(text)


def try_write(trouble: Trouble, write: Callable[[], None]) -> bool:
    """Whether something could be written."""
    try:
        write()
    except (SaveError, WriteError) as error:
        note_once(trouble, str(error))
        return False
    return True


def finish(trouble: Trouble, save: Callable[[], None], wait: Callable[[], None]) -> None:
    """Waits for the last save, which is tried once more where it failed: what failed before may have given room."""
    try:
        wait()
    except SaveError:
        _ = try_write(trouble, save) and try_write(trouble, wait)


def write_row(trouble: Trouble, writers: Iterable[Writer], round_: int, row: Row) -> None:
    """Gives a row to all writers. While some of them cannot write, that is said once, not for each of them and each row."""
    found = []
    for writer in writers:
        try:
            writer.write(round_, row)
        except WriteError as error:
            found.append(str(error))
    if found and not set(found) & set(trouble.notes):
        note_once(trouble, found[0])


@contextlib.contextmanager
def collect_lane_warnings(trouble: Trouble) -> Iterator[None]:
    """Lanes given up within are said and noted; other warnings go their way."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FewerLanes)
            yield
    finally:
        for warning in caught:
            if isinstance(warning.message, FewerLanes):
                trouble.notes.append(str(warning.message))
                trouble.say(str(warning.message))
            else:
                warnings.warn_explicit(
                    warning.message,
                    warning.category,
                    warning.filename,
                    warning.lineno,
                    registry=_TOLD,
                )
