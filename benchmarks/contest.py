"""One workload: the floors, our rounds on one device and on all, in turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from benchmarks.floor import Floor, scan_floor, schedule, sgd_step, single_step, vmap_floor
from benchmarks.measure import Timing, interleave
from benchmarks.workloads import Workload
from fedjax_sim.engine import Engine
from fedjax_sim.engine.costs import trip_costs
from fedjax_sim.engine.program import make_round
from fedjax_sim.engine.round import initial_state
from fedjax_sim.engine.xla.rewrite import has_convolution

TRAPPED = 2
"""Steps of the plain scan of convolutions that are timed: one takes as long as forty elsewhere."""


def ours(workload: Workload, devices: int, lanes: Any) -> Callable[[], Any]:
    """Returns a function that runs our round from the state after its last call.

    Args:
      workload: with a fixed cohort.
      devices: number of devices.
      lanes: of each device, ``"auto"`` or a number.
    """
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
    """The number of lanes that each device gets."""
    algorithm = workload.federated()
    sampler = workload.sampler
    work = workload.local_work
    engine = Engine(lanes=lanes, devices=devices)
    plan = make_round(algorithm, sampler, workload.table, work, engine).plan
    state = jax.eval_shape(
        lambda table: initial_state(algorithm, sampler, table.size, work, workload.init(), 0),
        workload.table,
    )
    return trip_costs(algorithm, sampler, plan, work, state, workload.table)[0].lanes


def time_workload(
    workload: Workload, devices: int, lanes: Any, repeats: int, budget: float = 60.0
) -> dict[str, Any]:
    """Measures one workload, in seconds of a round.

    Args:
      workload: with a fixed cohort.
      devices: number of devices of ``ours_s``.
      lanes: of each device, ``"auto"`` or a number.
      repeats: timings of each contender at most.
      budget: seconds of all timings.

    Returns:
      ``workload``, ``says``, ``steps``; ``devices`` and ``lanes`` of ``ours_s``; ``floor_s``, the
      scan of all steps, on a CPU with convolutions rewritten; ``trap_s``, the scan as XLA runs it
      there (from a few steps), if that differs; ``vmap_s`` if clients take one step each;
      ``alone_s``, a step jitted alone, times the steps; ``one_device_s``; ``ours_s`` on all
      devices; ``bfloat16_s``, on an accelerator, computed in half the width; ``ratio`` and
      ``ratio_one_device`` to the floor, both medians of ratios within a turn; ``spread``, lowest
      and highest of each; ``cores``, how many were busy on average.
    """
    floor, steps = scan_floor(workload, canonically=on_cpu())
    contenders: dict[str, Floor] = {"floor": floor, "one_device": ours(workload, 1, lanes)}
    contenders |= {"ours": ours(workload, devices, lanes)} if devices > 1 else {}
    contenders |= {"alone": single_step(workload)}
    contenders |= {"vmap": vmap_floor(workload)} if steps == len(workload.cohort) else {}
    contenders |= {} if on_cpu() else {"bfloat16": ours(workload.narrowed(), devices, lanes)}
    timings = interleave(contenders, repeats, budget)
    timings |= {"trap": trap(workload, steps)} if on_cpu() and convolves(workload) else {}
    widest = "ours" if devices > 1 else "one_device"
    return {
        "workload": workload.name,
        "says": workload.description,
        "steps": steps,
        "devices": devices,
        "lanes": lanes_of(workload, devices, lanes),
        **{f"{name}_s": timing.median for name, timing in timings.items()},
        "alone_s": timings["alone"].median * steps,
        "ours_s": timings[widest].median,
        "ratio": timings[widest].over(timings["floor"]),
        "ratio_one_device": timings["one_device"].over(timings["floor"]),
        "cores": {name: timing.cores for name, timing in timings.items() if timing.computed},
        "spread": {name: [timing.low, timing.high] for name, timing in timings.items()},
    }


def on_cpu() -> bool:
    """Whether JAX runs on a CPU, where XLA is slow at convolutions in a loop."""
    return jax.default_backend() == "cpu"


def convolves(workload: Workload) -> bool:
    """Whether a step of the workload has a convolution."""
    batch = jax.tree.map(lambda leaf: leaf[0], schedule(workload))
    return has_convolution(partial(sgd_step, workload), workload.table, workload.init(), batch)


def trap(workload: Workload, steps: int) -> Timing:
    """Time of the plain scan, extrapolated from a few of its steps."""
    run, timed_steps = scan_floor(workload, canonically=False, most=TRAPPED)
    timing = interleave({"trap": run}, 1)["trap"]
    return Timing(tuple(seconds * steps / timed_steps for seconds in timing.taken))
