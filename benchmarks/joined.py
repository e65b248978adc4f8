"""Two processes of a device each against one process of both. Called by :mod:`benchmarks.scale`.

All of them stay alive and are told when it is their turn; who has none waits for its standard input.
``python -m benchmarks.joined JSON`` is one of them.
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
"""With a single thread XLA adds up large products in another order."""
SHARDS = 4
"""A fixed number, so that both kinds end in the same bits."""


class Taken(NamedTuple):
    """Seconds of a turn: on the clock, and of all cores and processes together."""

    wall: float
    cpu: float


def measure(name: str, rounds: int, repeats: int, budget: float = 45.0) -> dict[str, Any]:
    """A workload's rounds in one process and in two, turn by turn, so many in a turn; examples on the host, two devices in all.

    Returns:
      ``seconds`` of a round (medians) of ``one`` process, of ``two``, and of two that are ``pinned`` to a core each; ``ratio`` of the
      others to one, medians of ratios within a turn, and ``ratio_cpu``, of processor time; and ``hashes`` of each kind, those of the
      states that its processes end in.
    """
    asked = {"one": (1, False), "two": (2, False), "pinned": (2, True)}
    with ExitStack() as stack:
        groups = {kind: stack.enter_context(group(name, *each)) for kind, each in asked.items()}
        for each in groups.values():
            turn(each, rounds)
        taken = take_turns(
            {kind: partial(turn, each, rounds) for kind, each in groups.items()}, repeats, budget
        )
        hashes = {
            kind: sorted({ask(process)["hash"] for process in tell(each, "hash")})
            for kind, each in groups.items()
        }
    times = {kind: Timing(*zip(*each, strict=True)) for kind, each in taken.items()}
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
    """Processes that make up one run, ready for their first turn."""
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
        asked = json.dumps(
            {"name": name, "port": port, "processes": processes, "number": number, "pinned": pinned}
        )
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.joined", asked], cwd=ROOT, env=env, **pipes
            )
        )
    try:
        yield running
    finally:
        for process in tell(running, END):
            process.communicate(timeout=60)


def turn(running: list[subprocess.Popen], rounds: int) -> Taken:
    """What so many rounds of all of them took: the time until the last one is done."""
    told = [ask(process) for process in tell(running, str(rounds))]
    return Taken(max(each["wall"] for each in told), sum(each["cpu"] for each in told))


def tell(running: list[subprocess.Popen], word: str) -> list[subprocess.Popen]:
    """Says a word to all of them."""
    for process in running:
        print(word, file=process.stdin, flush=True)
    return running


def ask(process: subprocess.Popen) -> Any:
    """What one of them answers; others speak on its output, too."""
    for line in process.stdout or ():
        if line.startswith("{"):
            return json.loads(line)
    fail(
        "a process of the benchmark has gone",
        got=f"exit status {process.wait()}",
        fix="try it by hand: python -m benchmarks.joined JSON",
    )


def serve(name: str, port: int, processes: int, number: int, pinned: bool) -> None:
    """One of the processes: rounds when it is told how many, and the hash of the state."""
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
        begun, computed = time.perf_counter(), time.process_time()
        for _ in range(rounds):
            state, _ = program.run(state)
        jax.block_until_ready(state)
        return Taken(time.perf_counter() - begun, time.process_time() - computed)._asdict()

    for word in iter(lambda: sys.stdin.readline().strip(), END):
        said = {"hash": state_hash(program.logical(state))} if word == "hash" else play(int(word))
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    serve(**json.loads(sys.argv[1]))
