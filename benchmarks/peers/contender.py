"""One peer as a process: started, asked for rounds and models, measured, and ended with all its children."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import threading
import time
from typing import Any

from benchmarks.peers import Peer
from benchmarks.peers.environment import PeerMissing, last_line, outside, prepare

KIT = pathlib.Path(__file__).parent / "kit"
START_LIMIT = 300
"""Seconds that a peer may take from its start to being ready for the first round."""


class Contender:
    """A running peer, its stderr in ``log``. A context manager: leaving it ends the process and whatever that started.

    Raises:
      PeerMissing: the peer could not be installed, did not start, failed, or did not answer in time.
    """

    def __init__(self, peer: Peer, folder: pathlib.Path, log: pathlib.Path) -> None:
        python = prepare(peer)
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        env = outside()
        command = [str(python), "-u", *peer.launch, str(KIT / f"{peer.script}.py"), str(folder)]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                cwd=folder,
                env={
                    **env,
                    "PATH": f"{python.parent}{os.pathsep}{env.get('PATH', '')}",
                    **dict(peer.settings),
                },
            )
        with contextlib.suppress(
            OSError
        ):  # where memory runs out, Linux should end the peer and nobody else
            pathlib.Path(f"/proc/{self._process.pid}/oom_score_adj").write_text("1000")
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._tree = Tree(self._process.pid)
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._send("stop")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=15)
        self._tree.end()
        self._process.wait()

    @property
    def peak_mb(self) -> float:
        """The largest sum of resident memory over the process and its children so far."""
        return self._tree.peak / 2**20

    def ready(self) -> dict[str, Any]:
        """Its first line: version and seconds of start-up."""
        return self._hear("start", START_LIMIT)

    def ask(self, word: str, limit: float) -> dict[str, Any]:
        """The answer to ``round`` or ``model``."""
        with contextlib.suppress(OSError):  # it has ended: the reader says so, and the log why
            self._send(word)
        return self._hear(word, limit)

    def _send(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _hear(self, word: str, limit: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            raise PeerMissing(f"no answer to {word!r} after {limit:.0f} s") from None
        if line is None:
            raise PeerMissing(f"failed at {word!r}: {self._why()}")
        return json.loads(line)

    def _why(self) -> str:
        """Why it has ended: its error, or the signal that killed it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=5)
            if code < 0:
                return f"killed by {signal.Signals(-code).name}" + (
                    ", out of memory perhaps" if code == -signal.SIGKILL else ""
                )
        return last_line(self.log.read_text(errors="replace"))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(
                "{"
            ):  # a framework may print before protocol.py has turned its stdout away
                self._lines.put(line)
        self._lines.put(None)


class Tree:
    """A process and its children: samples the sum of their resident memory, and ends them all.

    Linux's ``/proc`` alone; elsewhere only the process itself is ended, and the peak stays 0.
    """

    def __init__(self, root: int, every: float = 0.2) -> None:
        self.peak = 0
        self._root, self._every, self._open = root, every, True
        self._known = {(root, _stat(root)[1])}
        threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> None:
        """Kills whatever of the tree still lives."""
        self._open = False
        self._sample()
        for pid, born in self._known:
            if _stat(pid)[1] == born:  # a number may have been given to a stranger since
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _watch(self) -> None:
        while self._open:
            self._sample()
            time.sleep(self._every)

    def _sample(self) -> None:
        parents = (
            {int(entry): _stat(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
            if os.path.isdir("/proc")
            else {}
        )
        tree = {pid for pid, born in self._known if parents.get(pid, (0, ""))[1] == born}
        grown = True
        while grown:
            more = {pid for pid, (parent, _) in parents.items() if parent in tree} - tree
            tree |= more
            grown = bool(more)
        self._known |= {(pid, parents[pid][1]) for pid in tree}
        self.peak = max(self.peak, sum(map(_resident, tree)))


def _stat(pid: int) -> tuple[int, str]:
    """Parent and time of birth of a process; ``(0, "")`` where there is none."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[1]), fields[19]
    except (OSError, IndexError):
        return 0, ""


def _resident(pid: int) -> int:
    """Bytes of a process's resident memory."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except (OSError, IndexError):
        return 0
