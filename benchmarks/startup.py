"""``python -m benchmarks.startup [--repeats N]``: seconds until W1's first round is done.

Every figure is of a fresh process, from its first line to the end of the first round: importing JAX
and the package, making the program, copying the data to the devices, compiling (or loading) and
running; on all cores, as ``fedjax_sim.use_cores`` sets them. The time that the benchmark takes to
make its random data is not counted. Four kinds in turn:

* ``import``: importing JAX alone, the yardstick.
* ``cold``: an empty cache of compiled programs.
* ``warm``: the cache that ``cold`` wrote.
* ``damaged``: that cache with every entry truncated or overwritten; the loss must be the same, and
  the process must not fail.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fresh import fresh

REPEATS = 5


def measure(repeats: int = REPEATS) -> dict[str, Any]:
    """Measures all kinds, in turn.

    Args:
      repeats: turns.

    Returns:
      ``import_s``, ``cold_s``, ``warm_s``, ``damaged_s`` (medians) with ``spread`` (lowest and
      highest), ``warm_over_import``, ``parts`` (medians of the stages of a cold and of a warm
      process), and ``damage_survived``: whether all damaged runs ended with the loss of the cold
      ones.
    """
    taken: dict[str, list[dict[str, Any]]] = {
        kind: [] for kind in ("import", "cold", "warm", "damaged")
    }
    for _ in range(repeats):
        for kind, result in turn().items():
            taken[kind].append(result)
    totals = {kind: [result["total_s"] for result in results] for kind, results in taken.items()}
    losses = {result["loss"] for kind in ("cold", "warm", "damaged") for result in taken[kind]}
    medians = {kind: float(np.median(seconds)) for kind, seconds in totals.items()}
    return {
        **{f"{kind}_s": value for kind, value in medians.items()},
        "spread": {kind: [min(seconds), max(seconds)] for kind, seconds in totals.items()},
        "warm_over_import": medians["warm"] / medians["import"],
        "parts": {kind: stages(taken[kind]) for kind in ("cold", "warm")},
        "damage_survived": len(losses) == 1,
        "repeats": repeats,
    }


def turn() -> dict[str, dict[str, Any]]:
    """Measures one process of each kind, with a new cache folder."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"FEDJAX_SIM_CACHE": folder}
        results = {
            "import": fresh("benchmarks.startup:import_jax"),
            "cold": fresh("benchmarks.startup:first_round", env=env),
            "warm": fresh("benchmarks.startup:first_round", env=env),
        }
        damage(Path(folder))
        return {**results, "damaged": fresh("benchmarks.startup:first_round", env=env)}


def stages(results: list[dict[str, Any]]) -> dict[str, float]:
    """Medians of every stage."""
    return {
        key: float(np.median([result[key] for result in results]))
        for key in results[0]
        if key.endswith("_s")
    }


def damage(folder: Path) -> int:
    """Truncates every other entry of a cache and overwrites the rest with random bytes.

    Returns:
      The number of entries.
    """
    entries = sorted(folder.rglob("*-cache"))
    noise = np.random.default_rng(0)
    for number, path in enumerate(entries):
        content = path.read_bytes()
        half = len(content) // 2
        path.write_bytes(content[:half] if number % 2 else noise.bytes(len(content)))
    return len(entries)


def import_jax() -> dict[str, Any]:
    """Seconds of ``import jax`` in this process, which has not imported it before."""
    begun = time.perf_counter()
    import jax  # noqa: F401

    return {"total_s": time.perf_counter() - begun}


def first_round() -> dict[str, Any]:
    """Seconds to the end of W1's first round in this process, in stages, and the round's loss."""
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    import jax

    import_s = lap()
    import fedjax_sim as fs

    fs.use_cores()
    fs.enable_compilation_cache()
    from benchmarks.workloads import WORKLOADS

    package_s = lap()
    workload = WORKLOADS["W1"]()
    data_s = lap()
    program = fs.make_round(
        workload.federated(), workload.sampler, workload.data, workload.local_work
    )
    make_s = lap()
    state = program.init(workload.init())
    jax.block_until_ready(state)
    init_s = lap()
    state, outcome = program.run(state)
    jax.block_until_ready(state)
    round_s = lap()
    stages = {
        "import_s": import_s,
        "package_s": package_s,
        "make_s": make_s,
        "init_s": init_s,
        "round_s": round_s,
    }
    loss = float(outcome.metrics["loss"].value[0])
    return {"total_s": sum(stages.values()), **stages, "data_left_out_s": data_s, "loss": loss}


def main() -> None:
    """Runs the command of the module's docstring."""
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup", description=__doc__, formatter_class=verbatim
    )
    parser.add_argument("--repeats", default=REPEATS, type=int)
    print(json.dumps(measure(parser.parse_args().repeats), indent=2))


if __name__ == "__main__":
    main()
