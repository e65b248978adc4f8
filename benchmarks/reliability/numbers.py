"""The same numbers: with a fixed number of shards one hash of the whole state, whatever runs the shards; and what that costs."""

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
from benchmarks.reliability.tally import Tally, tally, together, told

SHARDS, ROUNDS = 8, 3
COUNTS = (1, 2, 4, 8)
ALGORITHMS = ("scaffold",)
CPU = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
COST = ("W1", "W3")
"""Workloads on which the fixed order is timed."""


def attack(
    algorithms: tuple[str, ...] = ALGORITHMS,
    counts: tuple[int, ...] = COUNTS,
    processes: bool = True,
    repeats: int = 5,
) -> Tally:
    """Every backend on so many devices, twice; two processes; and the ratio of times, with so many repetitions or none."""
    with (
        tempfile.TemporaryDirectory() as programs
    ):  # the second run of a kind is not compiled again
        env = {
            **CPU,
            "JAX_COMPILATION_CACHE_DIR": programs,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        parts = [
            tally(
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
    return together(*parts)


# -------------------------------------------------------------------------------------- one process


def attacked(algorithms: list[str], counts: list[int]) -> dict[str, Any]:
    """Hashes in this process, whose CPU is eight devices."""
    lost, count = [], 0
    for name in algorithms:
        hashes: dict[str, list[str]] = {}
        for backend, devices, number in layouts(counts):
            hashes.setdefault(hash_of(name, backend, devices), []).append(
                f"{backend} on {devices} (run {number})"
            )
            count += 1
        if len(hashes) > 1:
            lost.append(
                f"{name}: {len(hashes)} hashes: {'; '.join(', '.join(where) for where in hashes.values())}"
            )
    where = f"{{vmap, pmap, shard_map}} x {{{', '.join(map(str, counts))}}} devices x 2 runs of {', '.join(algorithms)}"
    return told(count, lost, f"{where}: one hash each" if not lost else where)


def layouts(counts: list[int]) -> Iterator[tuple[str, int, int]]:
    """Backend, devices, number of the run."""
    for backend in ("vmap", "pmap", "shard_map"):
        for devices in (1,) if backend == "vmap" else counts:
            yield from ((backend, devices, number) for number in (1, 2))


def hash_of(algorithm: str, backend: Any, devices: int) -> str:
    """The hash of the state after a few rounds on unequal clients."""
    import jax

    import fedjax_sim as fs
    from fedjax_sim.algorithms import REGISTRY

    task = fs.tasks.REGISTRY["digits"](clients=24)
    made = REGISTRY[algorithm].factory(task.objective)
    engine = fs.Engine(backend=backend, devices=devices, shards=SHARDS)
    program = fs.make_round(
        made, fs.samplers.uniform(20), task.data.train, fs.local_work(8, 1), engine
    )
    state, _ = program.run(program.init(task.init(jax.random.key(0)), 0), ROUNDS)
    return fs.state_hash(program.logical(state))


# ------------------------------------------------------------------------------------ two processes


def of_processes(count: int = 2) -> Tally:
    """The command line's run, as one process of four devices and as several that share them."""
    with tempfile.TemporaryDirectory() as top:
        config, one, more = scenes.configured(Path(top)), Path(top) / "one", Path(top) / "more"
        words = ["run", str(config), "rounds=6", "engine.shards=4", "engine.devices=4", "--out"]
        lost = ends([started([*words, str(one)], 4, Path(top))])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = ["--coordinator", address, "--processes", str(count), "--process-id"]
        lost += ends(
            [
                started([*words, str(more), *flags, str(number)], 4 // count, Path(top))
                for number in range(count)
            ]
        )
        lost += scenes.differences(one, more) if not lost else []
    return Tally(
        1, tuple(f"{count} processes: {text}" for text in lost), f"{count} processes as one"
    )


def started(words: list[str], devices: int, folder: Path) -> subprocess.Popen[str]:
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


def ends(running: list[subprocess.Popen[str]]) -> list[str]:
    """What processes complained of."""
    said = [process.communicate(timeout=300)[1] for process in running]
    return [
        f"status {each.returncode}: {text[-300:]}"
        for each, text in zip(running, said, strict=True)
        if each.returncode
    ]


# --------------------------------------------------------------------------------------------- cost


def cost(repeats: int) -> Tally:
    """How much longer rounds take with a fixed number of shards, on all cores. Measured and told; nothing is asserted."""
    found = fresh("benchmarks.reliability.numbers:timed", repeats=repeats)
    ratios = ", ".join(f"{ratio:.2f} on {name}" for name, ratio in found["ratios"].items())
    return Tally(
        0,
        (),
        f"a round with {SHARDS} shards takes {ratios} of the time with one shard a device ({found['devices']} devices)",
    )


def timed(repeats: int) -> dict[str, Any]:
    """The same, here."""
    import jax

    from fedjax_sim.runtime.devices import cores, use_cores

    use_cores(min(cores(), SHARDS))
    devices = max(n for n in COUNTS if n <= len(jax.devices()))
    return {"devices": devices, "ratios": {name: ratio(name, devices, repeats) for name in COST}}


def ratio(name: str, devices: int, repeats: int) -> float:
    """Time of a round with fixed shards over that of one with a shard for each device, measured in turn."""
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
