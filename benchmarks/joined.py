"""Two processes of a device each against one process of both. Called by :mod:`benchmarks.scale`.

All processes run during the whole measurement. The parent sends a line when it is the turn of a
process; the others wait for their standard input. ``python -m benchmarks.joined JSON`` is one of
them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

from benchmarks.fresh import ROOT
from benchmarks.hosted import cpu_over
from benchmarks.measure import Timing, take_turns
from fedjax_sim.core.errors import fail

END = "end"
THREADS = {"NPROC": "2"}
"""Environment: with a single thread XLA sums large products in another order."""
SHARDS = 4
"""A fixed number, so that one process and two end in the same bits."""


class Taken(NamedTuple):
    """Seconds of a turn: on the clock, and of all cores and processes together."""

    wall: float
    cpu: float


def measure(name: str, rounds: int, repeats: int, budget: float = 45.0) -> dict[str, Any]:
    """Times a workload's rounds in one process and in two, in turn.

    Examples are on the host, and there are two devices in all.

    Args:
      name: of a workload.
      rounds: rounds of a turn.
      repeats: turns at most.
      budget: seconds of all turns.

    Returns:
      ``seconds`` of a round (medians) of ``one`` process, of ``two``, and of two that are
      ``pinned`` to a core each; ``ratio`` of the others to one, medians of ratios within a turn,
      and ``ratio_cpu``, of processor time; and ``hashes`` of the states in which the processes of
      each kind end.
    """
    with ExitStack() as stack:
        groups = {
            "one": stack.enter_context(group(name, 1, pinned=False)),
            "two": stack.enter_context(group(name, 2, pinned=False)),
            "pinned": stack.enter_context(group(name, 2, pinned=True)),
        }
        for running in groups.values():
            turn(running, rounds)
        contenders = {kind: partial(turn, running, rounds) for kind, running in groups.items()}
        taken = take_turns(contenders, repeats, budget)
        hashes = {
            kind: sorted({answer(process)["hash"] for process in send(running, "hash")})
            for kind, running in groups.items()
        }
    times = {kind: Timing(*zip(*seconds, strict=True)) for kind, seconds in taken.items()}
    return {
        "workload": name,
        "shards": SHARDS,
        "seconds": {kind: time.median / rounds for kind, time in times.items()},
        "ratio": {kind: times[kind].over(times["one"]) for kind in ("two", "pinned")},
        "ratio_cpu": {kind: cpu_over(times[kind], times["one"]) for kind in ("two", "pinned")},
        "hashes": hashes,
    }


@contextmanager
def group(name: str, processes: int, pinned: bool) -> Iterator[list[subprocess.Popen]]:
    """Starts the processes of one run, and ends them when the context closes.

    Args:
      name: of a workload.
      processes: their number.
      pinned: whether each may use one core only.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
        "text": True,
    }
    env = {**os.environ, **(THREADS if pinned else {})}
    running = []
    for number in range(processes):
        settings = json.dumps(
            {"name": name, "port": port, "processes": processes, "number": number, "pinned": pinned}
        )
        command = [sys.executable, "-m", "benchmarks.joined", settings]
        running.append(subprocess.Popen(command, cwd=ROOT, env=env, **pipes))
    try:
        yield running
    finally:
        for process in send(running, END):
            process.communicate(timeout=60)


def turn(running: list[subprocess.Popen], rounds: int) -> Taken:
    """Runs rounds in all processes; returns the time until the last one is done."""
    answers = [answer(process) for process in send(running, str(rounds))]
    return Taken(max(times["wall"] for times in answers), sum(times["cpu"] for times in answers))


def send(running: list[subprocess.Popen], word: str) -> list[subprocess.Popen]:
    """Writes a line to every process; returns the processes."""
    for process in running:
        print(word, file=process.stdin, flush=True)
    return running


def answer(process: subprocess.Popen) -> Any:
    """The next line of JSON that a process writes; libraries write other lines."""
    for line in process.stdout or ():
        if line.startswith("{"):
            return json.loads(line)
    fail(
        "a process of the benchmark ended before its turn",
        got=f"exit status {process.wait()}",
        fix="run it by hand: python -m benchmarks.joined JSON",
    )


def serve(name: str, port: int, processes: int, number: int, pinned: bool) -> None:
    """Runs one of the processes: it reads a number of rounds to run, or ``hash``, from each line.

    Args:
      name: of a workload.
      port: of the coordinator.
      processes: their number.
      number: of this process, from 0.
      pinned: whether this process may use one core only.
    """
    if pinned and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[number]])
    import jax

    from benchmarks.workloads import WORKLOADS
    from fedjax_sim import samplers
    from fedjax_sim.engine import Engine
    from fedjax_sim.engine.program import make_round
    from fedjax_sim.persistence.manifest import state_hash
    from fedjax_sim.runtime.devices import enable_compilation_cache
    from fedjax_sim.runtime.processes import join

    jax.config.update("jax_num_cpu_devices", 2 // processes)
    enable_compilation_cache()
    if processes > 1:
        join(f"127.0.0.1:{port}", processes, number)
    workload = WORKLOADS[name]()
    engine = Engine(devices=2, shards=SHARDS, data="host")
    program = make_round(
        workload.federated(),
        samplers.uniform(len(workload.cohort)),
        workload.data,
        workload.local_work,
        engine,
    )
    state = program.init(workload.init())

    def play(rounds: int) -> dict[str, float]:
        nonlocal state
        begun = time.perf_counter()
        begun_cpu = time.process_time()
        for _ in range(rounds):
            state, _ = program.run(state)
        jax.block_until_ready(state)
        return Taken(time.perf_counter() - begun, time.process_time() - begun_cpu)._asdict()

    for word in iter(lambda: sys.stdin.readline().strip(), END):
        line = {"hash": state_hash(program.logical(state))} if word == "hash" else play(int(word))
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    serve(**json.loads(sys.argv[1]))
