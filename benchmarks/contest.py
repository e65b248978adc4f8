"""One workload: the floors, ours on one device and ours on all, in turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from benchmarks.floor import Floor, descend, scan_floor, schedule, single_step, vmap_floor
from benchmarks.measure import Timing, interleave
from benchmarks.workloads import Workload
from fedjax_sim.engine import Engine
from fedjax_sim.engine.costs import trip_costs
from fedjax_sim.engine.program import make_round
from fedjax_sim.engine.round import initial_state
from fedjax_sim.engine.xla.rewrite import has_convolution

TRAPPED = 2
"""Steps of the plain scan of convolutions that are timed: one takes as long as forty should."""


def ours(workload: Workload, devices: int, lanes: Any) -> Callable[[], Any]:
    """A round of ours, from the state that the last one left."""
    engine = Engine(lanes=lanes, devices=devices)
    program = make_round(
        workload.federated(), workload.sampler, workload.table, workload.local_work, engine
    )
    held = {"state": program.init(workload.init())}

    def run() -> Any:
        held["state"], outcome = program.run(held["state"])
        return held["state"], outcome

    return run


def lanes_of(workload: Workload, devices: int, lanes: Any) -> int:
    """How many lanes each device gets."""
    parts = workload.federated(), workload.sampler
    plan = make_round(
        *parts, workload.table, workload.local_work, Engine(lanes=lanes, devices=devices)
    ).plan
    state = jax.eval_shape(
        lambda table: initial_state(*parts, table.size, workload.local_work, workload.init(), 0),
        workload.table,
    )
    return trip_costs(*parts, plan, workload.local_work, state, workload.table)[0].lanes


def time_workload(
    workload: Workload, devices: int, lanes: Any, repeats: int, budget: float = 60.0
) -> dict[str, Any]:
    """One workload's figures, in seconds of a round.

    Returns:
      ``workload``, ``says``, ``steps``; ``devices`` and ``lanes`` of ``ours_s``; ``floor_s``, the scan of all steps, on a CPU with
      convolutions rewritten; ``trap_s``, the scan as XLA runs it there (from a few steps), where that differs; ``vmap_s`` where clients
      take one step each; ``alone_s``, a step jitted by itself times the steps; ``one_device_s``; ``ours_s`` on all devices;
      ``bfloat16_s``, on an accelerator, computed in half the width; ``ratio`` and ``ratio_one_device`` to the floor, both medians of
      ratios within a turn; ``spread``, lowest and highest of each; ``cores``, how many were busy on average.
    """
    floor, steps = scan_floor(workload, canonically=on_cpu())
    one, everywhere = (
        ours(workload, 1, lanes),
        ours(workload, devices, lanes) if devices > 1 else None,
    )
    contenders: dict[str, Floor] = {"floor": floor, "one_device": one}
    contenders |= {"ours": everywhere} if everywhere else {}
    contenders |= {"alone": single_step(workload)}
    contenders |= {"vmap": vmap_floor(workload)} if steps == len(workload.cohort) else {}
    contenders |= {} if on_cpu() else {"bfloat16": ours(workload.narrowed(), devices, lanes)}
    timings = interleave(contenders, repeats, budget)
    timings |= {"trap": trap(workload, steps)} if on_cpu() and convolves(workload) else {}
    best = "ours" if everywhere else "one_device"
    return {
        "workload": workload.name,
        "says": workload.says,
        "steps": steps,
        "devices": devices,
        "lanes": lanes_of(workload, devices, lanes),
        **{f"{name}_s": timing.median for name, timing in timings.items()},
        "alone_s": timings["alone"].median * steps,
        "ours_s": timings[best].median,
        "ratio": timings[best].over(timings["floor"]),
        "ratio_one_device": timings["one_device"].over(timings["floor"]),
        "cores": {name: timing.cores for name, timing in timings.items() if timing.computed},
        "spread": {name: [timing.low, timing.high] for name, timing in timings.items()},
    }


def on_cpu() -> bool:
    """Whether convolutions in a loop are slow here, and products want to be rewritten."""
    return jax.default_backend() == "cpu"


def convolves(workload: Workload) -> bool:
    """Whether a step of the workload convolves."""
    drawn = jax.tree.map(lambda leaf: leaf[0], schedule(workload))
    return has_convolution(partial(descend, workload), workload.table, workload.init(), drawn)


def trap(workload: Workload, steps: int) -> Timing:
    """The plain scan, from a few of its steps."""
    run, few = scan_floor(workload, canonically=False, most=TRAPPED)
    timing = interleave({"trap": run}, 1)["trap"]
    return Timing(tuple(taken * steps / few for taken in timing.taken))
