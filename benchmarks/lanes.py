"""``python -m benchmarks.lanes [--only W1,W5]``: ``lanes="auto"`` against fixed numbers of lanes.

On one device and on all; all choices of a workload run in turn. In a heavy workload 16 clients take
two local steps each, instead of whole epochs of the whole cohort, so that a round takes seconds:
the cost of a step with a given number of lanes is the same.
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
"""Seconds of repetitions for a workload on a number of devices (at least three of each choice)."""


def measure(
    names: list[str], repeats: int = 5, fixed: tuple[int, ...] | None = None, budget: float = BUDGET
) -> dict[str, Any]:
    """Times a round by lanes, for each workload, on one device and on all.

    Args:
      names: of workloads.
      repeats: timings of each choice at most.
      fixed: numbers of lanes to try; by default those of ``FIXED``.
      budget: seconds of a workload's timings on a number of devices.

    Returns:
      ``{workload: [{"devices", "auto", "seconds", "spread", "best", "worst", "auto_over_best",
      "worst_over_auto", "shortened"}, ...]}``: ``auto`` is the number of lanes that the engine
      chose, ``seconds`` are medians by lanes, ``best`` and ``worst`` are fixed choices, and
      ``auto_over_best`` below 1 is noise.
    """
    import jax

    counts = sorted({1, len(jax.devices())})
    fixed = fixed or FIXED[jax.default_backend()]
    return {
        name: [sweep(name, count, repeats, fixed, budget) for count in counts] for name in names
    }


def sweep(
    name: str, devices: int, repeats: int, fixed: tuple[int, ...], budget: float = BUDGET
) -> dict[str, Any]:
    """Times every choice of lanes for one workload, in turn.

    Numbers of lanes above the number of clients of a device are not tried.

    Args:
      name: of a workload.
      devices: number of devices.
      repeats: timings of each choice at most.
      fixed: numbers of lanes.
      budget: seconds of all timings.
    """
    from benchmarks.contest import lanes_of, ours
    from benchmarks.measure import interleave

    workload, shortened = short_enough(name, devices)
    tried = [lanes for lanes in fixed if lanes <= max(1, len(workload.cohort) // devices)]
    contenders = {str(lanes): ours(workload, devices, lanes) for lanes in ("auto", *tried)}
    times = interleave(contenders, repeats, budget)
    seconds = {lanes: timing.median for lanes, timing in times.items()}
    choices = [lanes for lanes in seconds if lanes != "auto"]
    best = min(choices, key=seconds.__getitem__)
    worst = max(choices, key=seconds.__getitem__)
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
    """Returns ``(workload, shortened)``.

    The workload has fewer clients and steps if a round of all would take too long, judged by its
    number of steps.
    """
    import jax

    from benchmarks.contest import ours
    from benchmarks.floor import client_steps
    from benchmarks.workloads import WORKLOADS

    workload = WORKLOADS[name]()
    # Two steps: if all clients take one step, the engine chooses other lanes.
    two_steps = workload.local_work._replace(epochs=1, steps=2)
    short = workload._replace(cohort=workload.cohort[:16], local_work=two_steps)
    run = ours(short, devices, "auto")
    jax.block_until_ready(run())
    start = time.perf_counter()
    jax.block_until_ready(run())
    seconds = time.perf_counter() - start
    factor = client_steps(workload).sum() / client_steps(short).sum()
    return (short, True) if seconds * factor > HEAVY else (workload, False)


def main() -> None:
    """Runs the command of the module's docstring."""
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
