"""The protocol of a contender: words on its stdin, a line each, and JSON lines on its first stdout.

| driver writes | contender answers |
|---|---|
| | ``{"ready": true, "version": ..., "setup_s": ...}``, once |
| ``round`` | ``{"seconds": wall seconds of the round}`` |
| ``model`` | ``{"model": path of an npz with the global model in the flax layout}`` |
| ``stop`` | nothing: it exits |

Runs inside a peer's environment: it needs only numpy and the standard library. Import it before the
framework, whose prints then go to the log.
"""

from __future__ import annotations

import json
import os
import pathlib
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

import numpy as np

# The driver reads the real stdout; prints of a framework and of its children go to stderr.
_answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

# The driver's words are read from a copy of the stdin, and the stdin itself is empty: a thread that
# waits in ``sys.stdin`` holds its lock, and a process forked meanwhile would never get that lock.
_words = os.fdopen(os.dup(0))
_empty = os.open(os.devnull, os.O_RDONLY)
os.dup2(_empty, 0)
os.close(_empty)

_begun = time.perf_counter()

Params = dict[str, np.ndarray]
"""A model: float32 arrays by name, such as ``"hidden_0/kernel"``, in the layout of flax."""


class Job(NamedTuple):
    """A workload. Client ``i`` owns the rows ``offsets[i]:offsets[i + 1]`` of ``x`` and ``y``.

    ``x`` and ``y`` are memory-mapped.
    """

    folder: pathlib.Path
    workload: str
    model: str
    algorithm: str
    classes: int
    lr: float
    batch_size: int
    epochs: int
    seed: int
    x: np.ndarray
    y: np.ndarray
    offsets: np.ndarray
    cohort: np.ndarray
    init: Params

    def clients(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """``(x, y)`` of every client of the cohort, in the cohort's order, copied into memory."""
        ends = [(int(self.offsets[i]), int(self.offsets[i + 1])) for i in self.cohort]
        return [(np.array(self.x[a:b]), np.array(self.y[a:b])) for a, b in ends]

    def sizes(self) -> list[int]:
        """Examples of every client of the cohort."""
        return [int(self.offsets[i + 1] - self.offsets[i]) for i in self.cohort]


def read_job(folder: str | os.PathLike[str]) -> Job:
    """The job that the driver wrote into a folder."""
    folder = pathlib.Path(folder).resolve()
    settings = json.loads((folder / "job.json").read_text())
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r")
        for name in ("x", "y", "offsets", "cohort")
    }
    with np.load(folder / "init.npz") as file:
        init = {name: file[name] for name in file.files}
    return Job(folder=folder, init=init, **arrays, **settings)


def job_of_script() -> Job:
    """The job whose folder is the script's first argument."""
    return read_job(sys.argv[1])


def versions(*packages: str) -> str:
    """``"fedjax 0.0.17, jax 0.12.0"`` of the distributions named."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in packages)


# ----------------------------------------------------- contenders that are called, round by round


def serve(
    setup: Callable[[Job], tuple[Callable[[], None], Callable[[], Params]]], *packages: str
) -> None:
    """Serves a contender that is called for every round.

    Args:
      setup: ``job -> (round, model)``: ``round()`` advances the global model by one round, and
        returns when it is computed; ``model()`` returns the global model. The time of ``setup``
        belongs to the start-up, not to a round.
      packages: distributions whose versions to report, the framework first.
    """
    job = job_of_script()
    run, model = setup(job)
    _ready(packages)
    for word in _words:
        if word.strip() == "round":
            start = time.perf_counter()
            run()
            _answer({"seconds": time.perf_counter() - start})
        elif word.strip() == "model":
            _answer({"model": _save(job, model())})
        else:
            break


# ------------------------------------------------------ contenders that own the loop over rounds


class Gate:
    """Where a framework that owns the loop over rounds waits for the driver, in any thread."""

    def __init__(self, job: Job, packages: tuple[str, ...]) -> None:
        self._job = job
        self._packages = packages
        self._words: queue.Queue[str] = queue.Queue()
        self._first = True
        self._start = 0.0
        self._model = job.init
        threading.Thread(target=self._listen, daemon=True).start()

    def begin(self) -> bool:
        """Blocks until the driver requests a round; False if the framework should end instead."""
        if self._first:
            self._first = False
            _ready(self._packages)
        while (word := self._words.get()) == "model":
            _answer({"model": _save(self._job, self._model)})
        self._start = time.perf_counter()
        return word == "round"

    def end(self, model: Callable[[], Params]) -> None:
        """Ends the round.

        Args:
          model: returns the global model; its time is not part of the round.
        """
        seconds = time.perf_counter() - self._start
        self._model = model()
        _answer({"seconds": seconds})

    def _listen(self) -> None:
        for line in _words:
            self._words.put(line.strip())
        self._words.put("stop")


def serve_loop(run: Callable[[Job, Gate], None], *packages: str) -> None:
    """Serves a framework that owns the loop over rounds.

    Args:
      run: ``(job, gate) -> None`` runs the framework in the main thread. At the start of each round
        the framework's callback calls ``gate.begin()``, at its end ``gate.end(model)``; the time
        between the two is the round's. If ``begin`` returns False, it ends.
      packages: distributions whose versions to report, the framework first.
    """
    job = job_of_script()
    code = 0
    try:
        run(job, Gate(job, packages))
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)  # remaining threads and actors of a framework would keep the process alive


def _ready(packages: tuple[str, ...]) -> None:
    _answer(
        {"ready": True, "version": versions(*packages), "setup_s": time.perf_counter() - _begun}
    )


def _answer(line: dict) -> None:
    _answers.write(json.dumps(line) + "\n")
    _answers.flush()


def _save(job: Job, model: Params) -> str:
    path = job.folder / f"model-{os.getpid()}.npz"
    np.savez(path, **{name: np.asarray(value, np.float32) for name, value in model.items()})
    return str(path)
