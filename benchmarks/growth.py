"""``python -m benchmarks.growth [--out DIR]``: how a round grows with the cohort, the population and the devices; curves as PNG.

* Cohort: seconds per client-step and peak memory beyond the data, cohort 10 to 10,000, on W1's model and its kind of data.
* Population: a round on 1,000,000 clients against one on 1,000, the same sampler, cohort and kind of clients.
* Devices: W2 on one CPU device and on two.

10,000 clients share the examples of W1's 1,000 (each owns a window of the same size law, windows overlap), so that the data fit any
machine; what a step reads is as scattered as if they did not. Memory is measured in a fresh process for each cohort.
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
    """All three growths, with their curves drawn into ``out_dir``.

    Returns:
      ``{"cohort": {devices: [{"cohort", "step_s", "low_s", "high_s"}, ...]}, "memory": [{"cohort", "peak_bytes", "temp_bytes", ...},
      ...], "population": {...}, "devices": {...}, "figures": [names]}``.
    """
    from benchmarks import curves

    counts, cpu = device_counts()
    with tempfile.TemporaryDirectory() as cache:
        kept = {"FEDJAX_SIM_CACHE": cache}
        parts: dict[str, Any] = {
            "cohort": {
                str(n): fresh("benchmarks.growth:cohorts", env=kept, devices=n)["rows"]
                for n in counts
            },
            "memory": [row for n in counts for row in peaks(n, kept)],
            "population": fresh("benchmarks.scaling:populations"),
            "devices": fresh("benchmarks.scaling:speed_up") if cpu and len(counts) > 1 else {},
        }
    parts["summary"] = summary(parts)
    parts["folder"], parts["figures"] = (
        Path(out_dir).name,
        [path.name for path in curves.draw(parts, Path(out_dir))],
    )
    return parts


def device_counts() -> tuple[tuple[int, ...], bool]:
    """One device and all (two where they are CPU cores), and whether they are."""
    import jax

    from fedjax_sim.runtime.devices import cores

    cpu = jax.default_backend() == "cpu"
    return tuple(sorted({1, min(cores(), 2) if cpu else len(jax.devices())})), cpu


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """The figures that the targets are about: largest over smallest, and shares."""
    memory = {
        n: [row for row in parts["memory"] if row["devices"] == int(n)] for n in parts["cohort"]
    }

    def spread(of: dict[str, list[dict[str, Any]]], key: str) -> dict[str, float]:
        return {
            n: max(row[key] for row in rows) / min(row[key] for row in rows)
            for n, rows in of.items()
        }

    return {
        "step_time_spread": spread(parts["cohort"], "step_s"),
        "cpu_time_spread": spread(parts["cohort"], "cpu_s"),
        "peak_memory_spread": spread(memory, "peak_bytes"),
        "population_share": parts["population"]["overhead_share"],
        "population_share_cpu": parts["population"]["overhead_share_cpu"],
        "speed_up": parts["devices"].get("speed_up"),
    }


# ------------------------------------------------------------------------------------------------------------- the cohort


def cohorts(devices: int, repeats: int = 5) -> dict[str, Any]:
    """Seconds per client-step for every cohort, in turn; each timing is of about 2,000 clients, in as many rounds as they take.

    ``step_s`` is wall time (median; the lowest and highest beside it), ``cpu_s`` what the process's threads took of all cores, which
    other programs on the machine disturb less.
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
    """W1's examples as a table of 10,000 clients: windows of its size law, anywhere."""
    import jax.numpy as jnp

    from benchmarks.workloads import WORKLOADS, lognormal_sizes
    from fedjax_sim.data.population import Table

    data = WORKLOADS["W1"]().data
    rng = np.random.default_rng(2)
    sizes = lognormal_sizes(rng, clients, 200, 0.6, 10, 800)
    offsets = rng.integers(0, data.offsets[-1] - sizes)
    return Table(data.x, data.y, jnp.asarray(offsets, jnp.int32), jnp.asarray(sizes, jnp.int32))


def program_of(table: Any, sampler: Any, devices: int) -> tuple[Any, Any]:
    """``(program, state)``: FedAvg on a table with W1's model and local work (batch 20, one epoch)."""
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


def timed(made: tuple[Any, Any], rounds: int) -> Callable[[], Taken]:
    """A function that runs so many rounds, one call each."""
    program, state = made
    held = {"state": state}

    def play(told: list[Any]) -> Any:
        for _ in range(rounds):
            held["state"], outcome = program.run(held["state"])
            told.append(outcome.clients["loss"].weight)
        return held["state"], told

    def run() -> Taken:
        told: list[Any] = []
        taken = clocked(lambda: play(told))
        # Each example is met once, so a client's weight is its size, and 20 of them make a step.
        steps = sum(int(np.sum(-(-np.asarray(weight) // 20))) for weight in told)
        return Taken(*(seconds / steps for seconds in taken))

    return run


def in_turn(contenders: dict[Any, Callable[[], Taken]], repeats: int) -> dict[Any, list[Taken]]:
    """What every contender took, called in turn after one call to warm up."""
    for run in contenders.values():
        run()
    return take_turns(contenders, repeats)


def middle(taken: list[Taken]) -> dict[str, float]:
    """Medians and spread."""
    wall = [each.wall for each in taken]
    cpu = float(np.median([each.cpu for each in taken]))
    return {"step_s": float(np.median(wall)), "low_s": min(wall), "high_s": max(wall), "cpu_s": cpu}


# ---------------------------------------------------------------------------------------------------------------- memory


def peaks(devices: int, env: dict[str, str]) -> list[dict[str, Any]]:
    """:func:`memory` of every cohort, each in a fresh process, all programs compiled in an earlier one: a compiler's memory is not a
    round's."""
    fresh("benchmarks.growth:compile_all", env=env, devices=devices)
    return [
        fresh("benchmarks.growth:memory", env=env, cohort=cohort, devices=devices)
        for cohort in COHORTS
    ]


def compile_all(devices: int) -> dict[str, Any]:
    """Leaves every cohort's programs in the persistent cache."""
    for cohort in COHORTS:
        memory(cohort, devices, rounds=1)
    return {}


def memory(cohort: int, devices: int, rounds: int = 2) -> dict[str, Any]:
    """Bytes beyond the data that rounds of a cohort take in this process.

    Returns:
      ``peak_bytes``, the most resident memory during the rounds less that with data and state in place, loading the program included (on
      an accelerator, and where there is no /proc, XLA's plan instead); ``temp_bytes``, XLA's plan of the round's temporary buffers, and
      ``report_bytes`` of its results that are not the new state's (metrics of each client), both on one device; ``data_bytes``, what was
      resident before.
    """
    import jax

    from fedjax_sim import samplers
    from fedjax_sim.runtime.devices import enable_compilation_cache

    if jax.config.jax_num_cpu_devices != devices:  # type: ignore[attr-defined]
        jax.config.update("jax_num_cpu_devices", devices)
    enable_compilation_cache()
    program, state = program_of(crowd(), samplers.uniform(cohort), devices)
    jax.block_until_ready(jax.live_arrays())  # the program's own copy of the data, too
    before = reset_peak()
    for _ in range(rounds):
        state, outcome = jax.block_until_ready(program.run(state))
    after = resident("VmHWM")
    plan = program.lower(state).compile().memory_analysis()
    seen = jax.default_backend() == "cpu" and PROC.is_dir()
    return {
        "cohort": cohort,
        "devices": devices,
        "peak_bytes": after - before
        if seen
        else plan.temp_size_in_bytes + plan.output_size_in_bytes,
        "temp_bytes": plan.temp_size_in_bytes,
        "report_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(outcome)),
        "data_bytes": before,
    }


def reset_peak() -> int:
    """Forgets the process's peak of resident memory; returns what is resident now, in bytes.

    What was freed goes back to the system first, as far as the C library can: a round would take it unseen.
    """
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    if PROC.is_dir():
        (PROC / "clear_refs").write_text("5")
    return resident("VmRSS")


def resident(what: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process, in bytes; 0 where there is no /proc."""
    lines = (PROC / "status").read_text().splitlines() if PROC.is_dir() else [f"{what}: 0"]
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def main() -> None:
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
