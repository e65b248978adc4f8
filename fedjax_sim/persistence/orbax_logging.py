"""Suppression of Orbax's messages: its threads print tracebacks for an error that is reported in
one sentence elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

_FAILED: list[bool] = []
"""Not empty once something has failed in this process."""


def hush() -> None:
    """Suppresses Orbax's messages until :func:`unhush`."""
    if not _hooked():
        sys.unraisablehook = partial(_unraisable, sys.unraisablehook)
    logging.getLogger("absl").addFilter(_not_orbax)
    logging.getLogger("asyncio").addFilter(_not_tensorstore)


def unhush(failed: bool = False) -> None:
    """Shows Orbax's messages again, unless something has failed.

    If one array cannot be read or written, Orbax closes its event loop while the other arrays still
    use it. Their errors are raised in threads of their own, where no caller can catch them: shortly
    after the first error, or when they are garbage-collected. So after a failure the messages stay
    suppressed.

    Args:
      failed: whether the read or write that ends now has failed.
    """
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
    logging.getLogger("absl").removeFilter(_not_orbax)
    logging.getLogger("asyncio").removeFilter(_not_tensorstore)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Suppresses Orbax's messages while open."""
    hush()
    try:
        yield
    except Exception:
        unhush(failed=True)
        raise
    unhush()


def cause(error: BaseException) -> str:
    """Returns the first line of the innermost error, with at most 160 characters.

    Args:
      error: as Orbax raised it.
    """
    while inner := error.__cause__ or error.__context__:
        error = inner
    line = (
        (str(error).strip().splitlines() or ["no message"])[0]
        .partition(" [tensorstore_spec")[0]
        .partition(" [os_error_code")[0]
    )
    if len(line) > 160:
        line = f"{line[:60]} ... {line[-95:]}"
    return f"{type(error).__name__}: {line}"


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _hooked() -> bool:
    return getattr(sys.unraisablehook, "func", None) is _unraisable


def _unraisable(before: Callable[[Any], Any], unraisable: Any) -> None:
    if "loop is closed" not in str(unraisable.exc_value):
        before(unraisable)


def _not_tensorstore(record: logging.LogRecord) -> bool:
    """Returns False for asyncio's messages about failed reads, which are reported elsewhere."""
    return "tensorstore" not in record.getMessage()
