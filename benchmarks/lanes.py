"""``python -m benchmarks.lanes [--only W1,W5]``: ``lanes="auto"`` against fixed numbers of lanes, on one device and on all.

All choices of a workload run in turn. Of a heavy workload 16 clients take two local steps each instead of the whole cohort its whole
epochs, so that a round takes seconds: what a step costs on so many lanes is the same.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

FIXED = {"cpu": (1, 2, 4, 8, 16, 64), "gpu": (1, 4, 16, 64, 256), "tpu": (1, 4, 16, 64, 256)}
HEAVY = 6.0
"""Seconds of a round above which it is shortened."""
BUDGET = 120.0
"""Seconds of repetitions for a workload on so many devices (at least three of each choice)."""


def measure(
    names: list[str], repeats: int = 5, fixed: tuple[int, ...] | None = None, budget: float = BUDGET
) -> dict[str, Any]:
    """For each workload and number of devices, seconds of a round by lanes.

    Returns:
      ``{workload: [{"devices", "auto", "seconds", "spread", "best", "worst", "auto_over_best", "worst_over_auto", "shortened"}, ...]}``:
      ``auto`` lanes were chosen, ``seconds`` are medians by lanes, ``best`` and ``worst`` are fixed choices, and ``auto_over_best``
      below 1 is noise.
    """
    import jax

    counts, fixed = sorted({1, len(jax.devices())}), fixed or FIXED[jax.default_backend()]
    return {
        name: [sweep(name, count, repeats, fixed, budget) for count in counts] for name in names
    }


def sweep(
    name: str, devices: int, repeats: int, fixed: tuple[int, ...], budget: float = BUDGET
) -> dict[str, Any]:
    """One workload on so many devices: every choice of lanes, in turn. Lanes beyond the clients of a device are not tried."""
    from benchmarks.contest import lanes_of, ours
    from benchmarks.measure import interleave

    workload, shortened = short_enough(name, devices)
    tried = [lanes for lanes in fixed if lanes <= max(1, len(workload.cohort) // devices)]
    contenders = {str(lanes): ours(workload, devices, lanes) for lanes in ("auto", *tried)}
    times = interleave(contenders, repeats, budget)
    seconds = {lanes: timing.median for lanes, timing in times.items()}
    best, worst = (
        choose((lanes for lanes in seconds if lanes != "auto"), key=seconds.__getitem__)
        for choose in (min, max)
    )
    return {
        "devices": devices,
        "auto": lanes_of(workload, devices, "auto"),
        "seconds": seconds,
        "spread": {lanes: [timing.low, timing.high] for lanes, timing in times.items()},
        "best": best,
        "worst": worst,
        "auto_over_best": times["auto"].over(times[best]),
        "worst_over_auto": times[worst].over(times["auto"]),
        "shortened": shortened,
    }


def short_enough(name: str, devices: int) -> tuple[Any, bool]:
    """``(workload, shortened)``: as it is, or with fewer clients and steps where, by its number of steps, a round would take too long."""
    import jax

    from benchmarks.contest import ours
    from benchmarks.floor import client_steps
    from benchmarks.workloads import WORKLOADS

    workload = WORKLOADS[name]()
    # Not one step: clients who all take one are a case of their own, for which the engine chooses other lanes.
    short = workload._replace(
        cohort=workload.cohort[:16], work=workload.local_work._replace(epochs=1, steps=2)
    )
    run = ours(short, devices, "auto")
    jax.block_until_ready(run())
    start = time.perf_counter()
    jax.block_until_ready(run())
    heavy = (time.perf_counter() - start) * client_steps(workload).sum() / client_steps(
        short
    ).sum() > HEAVY
    return (short, True) if heavy else (workload, False)


def main() -> None:
    from benchmarks.workloads import WORKLOADS
    from fedjax_sim.runtime.devices import use_cores

    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lanes", description=__doc__, formatter_class=verbatim
    )
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads, such as W1,W5")
    parser.add_argument("--repeats", default=5, type=int)
    options = parser.parse_args()
    use_cores()
    print(json.dumps(measure(options.only.split(","), options.repeats), indent=2))


if __name__ == "__main__":
    main()
