"""Ctrl-C and SIGTERM: the first one stops the run after the current round, the second one at
once."""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
PATIENCE = 5.0
"""Seconds that the message may take to be printed."""
DEFAULT = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""Python's handlers before a program installs its own."""


@contextlib.contextmanager
def graceful_stop(say: Callable[[str], None]) -> Iterator[Callable[[], str | None]]:
    """While open, the first SIGINT or SIGTERM is only recorded.

    The first signal also restores the earlier handlers, so a second one has its usual effect:
    Ctrl-C raises ``KeyboardInterrupt``, SIGTERM ends the process. A signal that was ignored before,
    as in a script's background process, gets Python's default handler then. The earlier handlers
    are restored in any case when the block ends. Python delivers signals to the main thread only;
    in another thread nothing is installed.

    Args:
      say: called at once with a message for the user, in a thread of its own: the signal may
        interrupt a print, or the import of what prints.

    Yields:
      ``() -> "interrupted"``, ``"terminated"``, or ``None`` before a signal.

    >>> import signal
    >>> from fedjax_sim.runtime.signals import graceful_stop
    >>> with graceful_stop(say=lambda text: None) as stopped:
    ...     before = stopped()
    ...     signal.raise_signal(signal.SIGTERM)
    ...     after = stopped()
    >>> before, after
    (None, 'terminated')
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received: list[str] = []
    # A SimpleQueue is reentrant: a signal handler may put into it at any moment.
    messages: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    printer = threading.Thread(
        target=_say_first, args=(messages, say), name="first-signal", daemon=True
    )
    before: dict[signal.Signals, object] = {}

    def restore(listening: bool = False) -> None:
        for number, handler in before.items():
            ignored = listening and handler is signal.SIG_IGN
            signal.signal(number, DEFAULT[number] if ignored else handler)  # type: ignore[arg-type]

    def note(number: int, frame: object) -> None:
        received.append(WORDS[signal.Signals(number)])
        restore(listening=True)
        messages.put("finishing this round; once more to stop at once")

    printer.start()
    for number in WORDS:
        before[number] = signal.getsignal(number)
        signal.signal(number, note)
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()
        messages.put(None)
        printer.join(PATIENCE)


def _say_first(messages: queue.SimpleQueue[str | None], say: Callable[[str], None]) -> None:
    text = messages.get()
    if text is not None:
        say(text)


@contextlib.contextmanager
def second_signal(leave: Callable[[int], None]) -> Iterator[None]:
    """While open, the second SIGINT or SIGTERM calls a function at once, in another thread.

    Python runs its own handlers only when the main thread returns to the interpreter, which during
    a round or a compilation may take minutes. Outside the main thread nothing is installed.

    Args:
      leave: ``signal number -> None``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watcher = threading.Thread(
        target=_watch, args=(reader, leave), name="second-signal", daemon=True
    )
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        watcher.join()
        reader.close()


def _watch(pipe: socket.socket, leave: Callable[[int], None]) -> None:
    """Reads the number of each signal, one byte."""
    count = 0
    while number := pipe.recv(1):
        count += number[0] in WORDS
        if count == 2:
            leave(number[0])


def exit_status(stopped: str) -> int:
    """Returns a run's exit status: 128 plus the number of the signal that stopped it, or 0.

    Args:
      stopped: why the run stopped, such as ``"interrupted"``.

    >>> from fedjax_sim.runtime.signals import exit_status
    >>> exit_status("interrupted"), exit_status("finished")
    (130, 0)
    """
    return next((128 + number for number, word in WORDS.items() if word == stopped), 0)
