"""``python -m benchmarks.growth [--out DIR]``: time and memory of larger rounds; curves as PNG.

* Cohort: seconds per client-step and peak memory beyond the data, cohort 10 to 10,000, on W1's
  model and its kind of data.
* Population: a round on 1,000,000 clients against one on 1,000, the same sampler, cohort and kind
  of clients.
* Devices: W2 on one CPU device and on two.

10,000 clients share the examples of W1's 1,000: each owns a window of them, sizes have the same
distribution, and windows overlap, so that the data fit on any machine; what a step reads is as
scattered as if they did not overlap. Memory is measured in a fresh process for each cohort.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.fresh import fresh
from benchmarks.measure import clocked, take_turns

COHORTS = (10, 100, 1000, 10_000)
PROC = Path("/proc/self")


def measure(out_dir: str | Path) -> dict[str, Any]:
    """Measures all three, and draws their curves.

    Args:
      out_dir: the folder of the pictures.

    Returns:
      ``{"cohort": {devices: [{"cohort", "step_s", "low_s", "high_s"}, ...]}, "memory": [{"cohort",
      "peak_bytes", "temp_bytes", ...}, ...], "population": {...}, "devices": {...}, "figures":
      [names]}``.
    """
    from benchmarks import curves

    counts, cpu = device_counts()
    with tempfile.TemporaryDirectory() as cache:
        env = {"FEDJAX_SIM_CACHE": cache}
        parts: dict[str, Any] = {
            "cohort": {
                str(n): fresh("benchmarks.growth:cohorts", env=env, devices=n)["rows"]
                for n in counts
            },
            "memory": [row for n in counts for row in peaks(n, env)],
            "population": fresh("benchmarks.scaling:populations"),
            "devices": fresh("benchmarks.scaling:speed_up") if cpu and len(counts) > 1 else {},
        }
    parts["summary"] = summary(parts)
    parts["folder"] = Path(out_dir).name
    parts["figures"] = [path.name for path in curves.draw(parts, Path(out_dir))]
    return parts


def device_counts() -> tuple[tuple[int, ...], bool]:
    """Returns ``(counts, cpu)``: numbers of devices to measure, and whether they are CPU cores.

    The counts are 1 and all, or 1 and 2 on a CPU.
    """
    import jax

    from fedjax_sim.runtime.devices import cores

    cpu = jax.default_backend() == "cpu"
    return tuple(sorted({1, min(cores(), 2) if cpu else len(jax.devices())})), cpu


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """The figures with a target: largest over smallest, and shares."""
    memory = {
        n: [row for row in parts["memory"] if row["devices"] == int(n)] for n in parts["cohort"]
    }

    def spread(rows_by_devices: dict[str, list[dict[str, Any]]], key: str) -> dict[str, float]:
        return {
            n: max(row[key] for row in rows) / min(row[key] for row in rows)
            for n, rows in rows_by_devices.items()
        }

    return {
        "step_time_spread": spread(parts["cohort"], "step_s"),
        "cpu_time_spread": spread(parts["cohort"], "cpu_s"),
        "peak_memory_spread": spread(memory, "peak_bytes"),
        "population_share": parts["population"]["overhead_share"],
        "population_share_cpu": parts["population"]["overhead_share_cpu"],
        "speed_up": parts["devices"].get("speed_up"),
    }


# --------------------------------------------------------------------------------------- the cohort


def cohorts(devices: int, repeats: int = 5) -> dict[str, Any]:
    """Times a client-step for every cohort, in turn.

    Args:
      devices: number of devices.
      repeats: timings of each cohort; one is of about 2,000 clients, in one round or several.

    Returns:
      ``rows``, one for each cohort: ``step_s`` is wall time (median) with ``low_s`` and ``high_s``,
      ``cpu_s`` the processor time of the process's threads, which other programs on the machine
      disturb less.
    """
    import jax

    from fedjax_sim import samplers
    from fedjax_sim.runtime.devices import enable_compilation_cache

    jax.config.update("jax_num_cpu_devices", devices)
    enable_compilation_cache()
    table = crowd()
    contenders = {
        cohort: timed(program_of(table, samplers.uniform(cohort), devices), max(1, 2000 // cohort))
        for cohort in COHORTS
    }
    return {
        "rows": [
            {"cohort": cohort, "devices": devices, **middle(taken)}
            for cohort, taken in in_turn(contenders, repeats).items()
        ]
    }


def crowd(clients: int = COHORTS[-1]) -> Any:
    """W1's examples as a table of 10,000 clients, which own overlapping windows of them."""
    import jax.numpy as jnp

    from benchmarks.workloads import WORKLOADS, lognormal_sizes
    from fedjax_sim.data.population import Table

    data = WORKLOADS["W1"]().data
    rng = np.random.default_rng(2)
    sizes = lognormal_sizes(rng, clients, 200, 0.6, 10, 800)
    offsets = rng.integers(0, data.offsets[-1] - sizes)
    return Table(data.x, data.y, jnp.asarray(offsets, jnp.int32), jnp.asarray(sizes, jnp.int32))


def program_of(table: Any, sampler: Any, devices: int) -> tuple[Any, Any]:
    """Returns ``(program, state)``: FedAvg with W1's model and local work (batch 20, one epoch)."""
    import jax

    import fedjax_sim as fs

    network = fs.models.logistic(62)
    algorithm = fs.fedavg(fs.classification(network), lr=0.05)
    program = fs.make_round(
        algorithm, sampler, table, fs.local_work(20), fs.Engine(devices=devices)
    )
    return program, program.init(fs.Variables(*network.init(jax.random.key(0), table.x[:1])))


class Taken(NamedTuple):
    """Seconds per client-step: on the clock, and of all cores together."""

    wall: float
    cpu: float


def timed(program_and_state: tuple[Any, Any], rounds: int) -> Callable[[], Taken]:
    """Returns a function that runs this number of rounds, one call each."""
    program, state = program_and_state
    held = {"state": state}

    def play(weights: list[Any]) -> Any:
        for _ in range(rounds):
            held["state"], outcome = program.run(held["state"])
            weights.append(outcome.clients["loss"].weight)
        return held["state"], weights

    def run() -> Taken:
        weights: list[Any] = []
        wall, cpu = clocked(lambda: play(weights))
        # Each example is used once, so a client's weight is its size; 20 examples make a step.
        steps = sum(int(np.sum(-(-np.asarray(weight) // 20))) for weight in weights)
        return Taken(wall / steps, cpu / steps)

    return run


def in_turn(contenders: dict[Any, Callable[[], Taken]], repeats: int) -> dict[Any, list[Taken]]:
    """Times of every contender, called in turn after one call to warm up."""
    for run in contenders.values():
        run()
    return take_turns(contenders, repeats)


def middle(taken: list[Taken]) -> dict[str, float]:
    """Medians and spread."""
    wall = [times.wall for times in taken]
    cpu = float(np.median([times.cpu for times in taken]))
    return {"step_s": float(np.median(wall)), "low_s": min(wall), "high_s": max(wall), "cpu_s": cpu}


# ------------------------------------------------------------------------------------------- memory


def peaks(devices: int, env: dict[str, str]) -> list[dict[str, Any]]:
    """Returns :func:`memory` of every cohort, each measured in a fresh process.

    All programs are compiled in an earlier process, so that the compiler's memory is not counted.

    Args:
      devices: number of devices.
      env: environment variables, which set the folder of compiled programs.
    """
    fresh("benchmarks.growth:compile_all", env=env, devices=devices)
    return [
        fresh("benchmarks.growth:memory", env=env, cohort=cohort, devices=devices)
        for cohort in COHORTS
    ]


def compile_all(devices: int) -> dict[str, Any]:
    """Compiles every cohort's programs, which the persistent cache keeps."""
    for cohort in COHORTS:
        memory(cohort, devices, rounds=1)
    return {}


def memory(cohort: int, devices: int, rounds: int = 2) -> dict[str, Any]:
    """Measures the bytes beyond the data that rounds of a cohort take in this process.

    Args:
      cohort: clients of a round.
      devices: number of devices.
      rounds: rounds that are run.

    Returns:
      ``peak_bytes``, the peak of resident memory during the rounds less that with data and state in
      place, loading the program included (on an accelerator, and on systems without /proc, XLA's
      plan instead); ``temp_bytes``, XLA's plan of the round's temporary buffers, and
      ``report_bytes`` of its results besides the new state (metrics of each client), both on one
      device; ``data_bytes``, resident before.
    """
    import jax

    from fedjax_sim import samplers
    from fedjax_sim.runtime.devices import enable_compilation_cache

    if jax.config.jax_num_cpu_devices != devices:  # type: ignore[attr-defined]
        jax.config.update("jax_num_cpu_devices", devices)
    enable_compilation_cache()
    program, state = program_of(crowd(), samplers.uniform(cohort), devices)
    jax.block_until_ready(jax.live_arrays())  # also the program's own copy of the data
    before = reset_peak()
    for _ in range(rounds):
        state, outcome = jax.block_until_ready(program.run(state))
    after = resident("VmHWM")
    plan = program.lower(state).compile().memory_analysis()
    measurable = jax.default_backend() == "cpu" and PROC.is_dir()
    planned = plan.temp_size_in_bytes + plan.output_size_in_bytes
    return {
        "cohort": cohort,
        "devices": devices,
        "peak_bytes": after - before if measurable else planned,
        "temp_bytes": plan.temp_size_in_bytes,
        "report_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(outcome)),
        "data_bytes": before,
    }


def reset_peak() -> int:
    """Resets the process's peak of resident memory; returns what is resident now, in bytes.

    Freed memory is returned to the operating system first, as far as the C library can: a round
    that used it would not raise the peak.
    """
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    if PROC.is_dir():
        (PROC / "clear_refs").write_text("5")
    return resident("VmRSS")


def resident(what: str) -> int:
    """``VmRSS`` (now), ``VmHWM`` (peak) or ``RssAnon`` of this process, bytes; 0 without /proc."""
    lines = (PROC / "status").read_text().splitlines() if PROC.is_dir() else [f"{what}: 0"]
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def main() -> None:
    """Runs the command of the module's docstring."""
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=verbatim
    )
    parser.add_argument(
        "--out", default="benchmarks/results/growth", type=Path, help="folder of the curves"
    )
    print(json.dumps(measure(parser.parse_args().out), indent=2))


if __name__ == "__main__":
    main()
