"""The same numbers: with a fixed number of shards the hash of the state is the same on any devices.

Also measures what a fixed number of shards costs.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.fresh import ROOT, fresh
from benchmarks.reliability import scenes
from benchmarks.reliability.tally import Tally, combined, from_json, to_json

SHARDS = 8
ROUNDS = 3
COUNTS = (1, 2, 4, 8)
ALGORITHMS = ("scaffold",)
CPU = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
COST = ("W1", "W3")
"""Workloads on which a fixed number of shards is timed."""


def attack(
    algorithms: tuple[str, ...] = ALGORITHMS,
    counts: tuple[int, ...] = COUNTS,
    processes: bool = True,
    repeats: int = 5,
) -> Tally:
    """Compares hashes of every backend and of two processes, and times a fixed number of shards.

    Args:
      algorithms: names of registered algorithms.
      counts: numbers of devices, each run twice.
      processes: whether to run two processes, too.
      repeats: timings of the cost; 0 for none.
    """
    # The second run of a kind uses the first one's compiled programs.
    with tempfile.TemporaryDirectory() as programs:
        env = {
            **CPU,
            "JAX_COMPILATION_CACHE_DIR": programs,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        parts = [
            from_json(
                fresh(
                    "benchmarks.reliability.numbers:attacked",
                    env=env,
                    algorithms=algorithms,
                    counts=counts,
                )
            )
        ]
    parts += [of_processes()] if processes else []
    parts += [cost(repeats)] if repeats else []
    return combined(*parts)


# -------------------------------------------------------------------------------------- one process


def attacked(algorithms: list[str], counts: list[int]) -> dict[str, Any]:
    """Compares hashes in this process, whose CPU is eight devices."""
    lost = []
    count = 0
    for name in algorithms:
        layouts_by_hash: dict[str, list[str]] = {}
        for backend, devices, number in layouts(counts):
            layout = f"{backend} on {devices} (run {number})"
            layouts_by_hash.setdefault(hash_of(name, backend, devices), []).append(layout)
            count += 1
        if len(layouts_by_hash) > 1:
            groups = "; ".join(", ".join(group) for group in layouts_by_hash.values())
            lost.append(f"{name}: {len(layouts_by_hash)} hashes: {groups}")
    devices = ", ".join(map(str, counts))
    names = ", ".join(algorithms)
    note = f"{{vmap, pmap, shard_map}} x {{{devices}}} devices x 2 runs of {names}"
    return to_json(count, lost, f"{note}: one hash each" if not lost else note)


def layouts(counts: list[int]) -> Iterator[tuple[str, int, int]]:
    """Yields ``(backend, devices, number of the run)``."""
    for backend in ("vmap", "pmap", "shard_map"):
        for devices in (1,) if backend == "vmap" else counts:
            yield from ((backend, devices, number) for number in (1, 2))


def hash_of(algorithm: str, backend: Any, devices: int) -> str:
    """The hash of the state after a few rounds on unequal clients."""
    import jax

    import fedjax_sim as fs
    from fedjax_sim.algorithms import REGISTRY

    task = fs.tasks.REGISTRY["digits"](clients=24)
    program = fs.make_round(
        REGISTRY[algorithm].factory(task.objective),
        fs.samplers.uniform(20),
        task.data.train,
        fs.local_work(8, 1),
        fs.Engine(backend=backend, devices=devices, shards=SHARDS),
    )
    state, _ = program.run(program.init(task.init(jax.random.key(0)), 0), ROUNDS)
    return fs.state_hash(program.logical(state))


# ------------------------------------------------------------------------------------ two processes


def of_processes(count: int = 2) -> Tally:
    """Compares runs of one process with four devices and of several that share them.

    Args:
      count: number of processes.
    """
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        config = scenes.configured(folder)
        single = folder / "single"
        several = folder / "several"
        words = ["run", str(config), "rounds=6", "engine.shards=4", "engine.devices=4", "--out"]
        lost = errors_of([started([*words, str(single)], 4, folder)])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = ["--coordinator", address, "--processes", str(count), "--process-id"]
        commands = [[*words, str(several), *flags, str(number)] for number in range(count)]
        lost += errors_of([started(command, 4 // count, folder) for command in commands])
        lost += scenes.differences(single, several) if not lost else []
    texts = tuple(f"{count} processes: {text}" for text in lost)
    return Tally(1, texts, f"{count} processes as one")


def started(words: list[str], devices: int, folder: Path) -> subprocess.Popen[str]:
    """Starts a command of ``fedjax-sim`` on CPU devices, with compiled programs in a folder."""
    env = {
        **os.environ,
        **CPU,
        "JAX_NUM_CPU_DEVICES": str(devices),
        "FEDJAX_SIM_CACHE": str(folder / "programs"),
    }
    command = [sys.executable, "-m", "fedjax_sim", *words]
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def errors_of(running: list[subprocess.Popen[str]]) -> list[str]:
    """Waits for processes; returns the errors of those that failed."""
    errors = [process.communicate(timeout=300)[1] for process in running]
    return [
        f"status {process.returncode}: {text[-300:]}"
        for process, text in zip(running, errors, strict=True)
        if process.returncode
    ]


# --------------------------------------------------------------------------------------------- cost


def cost(repeats: int) -> Tally:
    """Measures how much longer rounds take with a fixed number of shards, on all cores.

    The ratios are only reported; no ratio is a loss.
    """
    result = fresh("benchmarks.reliability.numbers:timed", repeats=repeats)
    ratios = ", ".join(f"{ratio:.2f} on {name}" for name, ratio in result["ratios"].items())
    note = (
        f"a round with {SHARDS} shards takes {ratios} of the time with one shard a device "
        f"({result['devices']} devices)"
    )
    return Tally(0, (), note)


def timed(repeats: int) -> dict[str, Any]:
    """Measures the ratios in this process."""
    import jax

    from fedjax_sim.runtime.devices import cores, use_cores

    use_cores(min(cores(), SHARDS))
    devices = max(n for n in COUNTS if n <= len(jax.devices()))
    return {"devices": devices, "ratios": {name: ratio(name, devices, repeats) for name in COST}}


def ratio(name: str, devices: int, repeats: int) -> float:
    """Time of a round with fixed shards over that with a shard for each device, in turn."""
    from functools import partial

    from benchmarks.measure import interleave
    from benchmarks.workloads import WORKLOADS
    from fedjax_sim.engine import Engine
    from fedjax_sim.engine.program import make_round

    workload = WORKLOADS[name]()
    contenders = {}
    for label, shards in (("fixed", SHARDS), ("free", None)):
        engine = Engine(devices=devices, shards=shards)
        program = make_round(
            workload.federated(), workload.sampler, workload.data, workload.local_work, engine
        )
        contenders[label] = partial(_advance, program, {"state": program.init(workload.init())})
    timings = interleave(contenders, repeats, budget=25.0)
    return timings["fixed"].over(timings["free"])


def _advance(program: Any, held: dict[str, Any]) -> Any:
    held["state"], outcome = program.run(held["state"])
    return held["state"], outcome


if __name__ == "__main__":
    print(attack())
