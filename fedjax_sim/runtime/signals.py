"""Ctrl-C and SIGTERM, taken as a wish: the round is finished first. Meant twice, they act at once."""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
PATIENCE = 5.0
"""Seconds that words may take to be said."""
ALONE = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""What a signal does where nobody has said anything else."""


@contextlib.contextmanager
def graceful_stop(say: Callable[[str], None]) -> Iterator[Callable[[], str | None]]:
    """While open, the first SIGINT or SIGTERM is only noted; what is yielded returns ``"interrupted"``, ``"terminated"`` or ``None``.

    The first signal also puts the earlier handlers back, so a second one does what it would have done without us: Ctrl-C raises
    ``KeyboardInterrupt``, SIGTERM ends the process; also where it would have done nothing, as to what a script has put into the
    background. The earlier handlers are back in any case when the block is left. Python delivers signals to the main thread only; in
    another one nothing is installed.

    Args:
      say: told at once that the wish was heard, on a thread of its own: the signal may have come in the middle of a print, or of
        importing what prints.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    asked: list[str] = []
    words: queue.SimpleQueue[str | None] = (
        queue.SimpleQueue()
    )  # takes what a signal's handler puts, whatever that came in between of
    teller = threading.Thread(target=_tell, args=(words, say), name="first-signal", daemon=True)
    before: dict[signal.Signals, object] = {}

    def restore(listening: bool = False) -> None:
        for number, handler in before.items():
            deaf = listening and handler is signal.SIG_IGN
            signal.signal(number, ALONE[number] if deaf else handler)  # type: ignore[arg-type]

    def note(number: int, frame: object) -> None:
        asked.append(WORDS[signal.Signals(number)])
        restore(listening=True)
        words.put("finishing this round; once more to stop at once")

    teller.start()
    for number in WORDS:
        before[number] = signal.getsignal(number)
        signal.signal(number, note)
    try:
        yield lambda: asked[0] if asked else None
    finally:
        restore()
        words.put(None)
        teller.join(PATIENCE)


def _tell(words: queue.SimpleQueue[str | None], say: Callable[[str], None]) -> None:
    """Says what comes first, if it is something."""
    if (text := words.get()) is not None:
        say(text)


@contextlib.contextmanager
def second_signal(leave: Callable[[int], None]) -> Iterator[None]:
    """While open, the second SIGINT or SIGTERM calls ``leave(number)``, on another thread and at once.

    Python's own handlers wait until the main thread is back from what it is doing, which in the middle of a round or of compiling one may
    be minutes. In another thread than the main one nothing is watched.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(ours, leave), name="second-signal", daemon=True)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()
        watcher.join()
        ours.close()


def _watch(pipe: socket.socket, leave: Callable[[int], None]) -> None:
    """Reads a byte for each signal that came, its number."""
    heard = 0
    while number := pipe.recv(1):
        heard += number[0] in WORDS
        if heard == 2:
            leave(number[0])


def exit_status(stopped: str) -> int:
    """The exit status that says why a run stopped: 128 and the signal's number where it was one, as shells have it, else 0."""
    return next((128 + number for number, word in WORDS.items() if word == stopped), 0)
