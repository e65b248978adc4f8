"""One peer as a process: started, measured while it runs, and ended with all its children."""

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
from benchmarks.peers.environment import PeerMissing, last_line, peer_environment, prepare

KIT = pathlib.Path(__file__).parent / "kit"
START_LIMIT = 300
"""Seconds that a peer may take from its start to being ready for the first round."""


class Contender:
    """A running peer. A context manager: leaving it ends the process and its children.

    Args:
      peer: which one.
      folder: of the job.
      log: a file for its standard error.

    Raises:
      PeerMissing: if the peer could not be installed, did not start, failed, or did not answer in
        time.
    """

    def __init__(self, peer: Peer, folder: pathlib.Path, log: pathlib.Path) -> None:
        python = prepare(peer)
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        env = peer_environment()
        env["PATH"] = f"{python.parent}{os.pathsep}{env.get('PATH', '')}"
        env |= dict(peer.settings)
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
                env=env,
            )
        with contextlib.suppress(OSError):  # if memory runs out, Linux should kill the peer
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
        """The largest sum so far of resident memory over the process and its children, MiB."""
        return self._tree.peak / 2**20

    def ready(self) -> dict[str, Any]:
        """Its first line: version and seconds of start-up."""
        return self._receive("start", START_LIMIT)

    def ask(self, word: str, limit: float) -> dict[str, Any]:
        """Sends ``round`` or ``model``; returns the answer.

        Args:
          word: to send.
          limit: seconds to wait for the answer.
        """
        with contextlib.suppress(OSError):  # it has ended, which _receive reports
            self._send(word)
        return self._receive(word, limit)

    def _send(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _receive(self, word: str, limit: float) -> dict[str, Any]:
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
                guess = ", out of memory perhaps" if code == -signal.SIGKILL else ""
                return f"killed by {signal.Signals(-code).name}{guess}"
        return last_line(self.log.read_text(errors="replace"))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(
                "{"
            ):  # a framework may print before protocol.py redirects its stdout
                self._lines.put(line)
        self._lines.put(None)


class Tree:
    """A process and its children: samples the sum of their resident memory, and ends them all.

    Needs ``/proc``; on other systems only the process itself is ended, and the peak stays 0.

    Args:
      root: the process.
      every: seconds between two samples.
    """

    def __init__(self, root: int, every: float = 0.2) -> None:
        self.peak = 0
        self._every = every
        self._open = True
        self._known = {(root, _stat(root)[1])}
        threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> None:
        """Kills all processes of the tree that still run."""
        self._open = False
        self._sample()
        for pid, born in self._known:
            if _stat(pid)[1] == born:  # the id may have been given to another process since
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _watch(self) -> None:
        while self._open:
            self._sample()
            time.sleep(self._every)

    def _sample(self) -> None:
        ids = filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ())
        parents = {int(pid): _stat(int(pid)) for pid in ids}
        tree = {pid for pid, born in self._known if parents.get(pid, (0, ""))[1] == born}
        grown = True
        while grown:
            more = {pid for pid, (parent, _) in parents.items() if parent in tree} - tree
            tree |= more
            grown = bool(more)
        self._known |= {(pid, parents[pid][1]) for pid in tree}
        self.peak = max(self.peak, sum(map(_resident, tree)))


def _stat(pid: int) -> tuple[int, str]:
    """Parent and start time of a process; ``(0, "")`` if it does not exist."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[1]), fields[19]
    except (OSError, IndexError):
        return 0, ""


def _resident(pid: int) -> int:
    """Bytes of a process's resident memory."""
    try:
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
