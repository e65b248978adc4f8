"""Orbax without its noise: its threads print a page of traceback each for an error that is reported elsewhere in one sentence."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

_FAILED: list[bool] = []
"""Whether something failed in this process."""


def hush() -> None:
    """From now on Orbax says nothing, until :func:`unhush`."""
    if not _hooked():
        sys.unraisablehook = partial(_unraisable, sys.unraisablehook)
    logging.getLogger("absl").addFilter(_quiet)
    logging.getLogger("asyncio").addFilter(_elsewhere)


def unhush(failed: bool = False) -> None:
    """The way back. When one array cannot be read or written, Orbax closes its event loop under the others, which complain from their
    own threads, where nobody can catch them: shortly after the error itself, or whenever they are collected. So after something has
    ``failed``, the ears stay closed."""
    if failed:
        _FAILED.append(True)
        warnings.filterwarnings(
            "ignore",
            message=r"coroutine '\w*TypeHandler\.\w+' was never awaited",
            category=RuntimeWarning,
        )
    if _FAILED:
        return
    if _hooked():
        sys.unraisablehook = sys.unraisablehook.args[0]  # type: ignore[attr-defined]
    logging.getLogger("absl").removeFilter(_quiet)
    logging.getLogger("asyncio").removeFilter(_elsewhere)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """A read without noise."""
    hush()
    try:
        yield
    except Exception:
        unhush(failed=True)
        raise
    unhush()


def cause(error: BaseException) -> str:
    """The first line of the innermost error, which is the one that says something; of a long one, begin and end."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    line = (
        (str(error).strip().splitlines() or ["no message"])[0]
        .partition(" [tensorstore_spec")[0]
        .partition(" [os_error_code")[0]
    )
    return (
        f"{type(error).__name__}: {line if len(line) <= 160 else f'{line[:60]} ... {line[-95:]}'}"
    )


def _quiet(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _hooked() -> bool:
    return getattr(sys.unraisablehook, "func", None) is _unraisable


def _unraisable(before: Callable[[Any], Any], told: Any) -> None:
    if "loop is closed" not in str(told.exc_value):
        before(told)


def _elsewhere(record: logging.LogRecord) -> bool:
    """Not about a read whose error was told: asyncio says so of every one that nobody waited for."""
    return "tensorstore" not in record.getMessage()
