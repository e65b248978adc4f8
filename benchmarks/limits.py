"""``python -m benchmarks.limits [--only W1,W2]``: the machine's rates, and what rounds reach.

The machine: a large square matrix product in float32, and memory copied and scaled in place, all
jitted, each the best of several runs (a limit is what can be reached, so disturbances do not
count). On an accelerator the product runs at JAX's default precision, as the models do.

A step: XLA's ``cost_analysis`` of one jitted SGD step, times the number of steps. XLA counts the
body of a loop once, so its analysis of a whole round (a loop over steps) is of no use, and a step
that contains a loop (an LSTM over time) is corrected here: each ``scan`` of the step adds its
body's cost, compiled alone, for its remaining iterations. "Bytes accessed" are what the
instructions read and write; most of a small model's are in the cache, so that their rate may exceed
that of the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

TURNS = 7


class Cost(NamedTuple):
    """Arithmetic and memory traffic of a program."""

    flops: float
    bytes: float

    def plus(self, other: Cost, times: float = 1) -> Cost:
        """The sum of this cost and a multiple of another."""
        return Cost(self.flops + times * other.flops, self.bytes + times * other.bytes)


def measure(lines: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Measures the machine's limits, and the share of them that rounds reach.

    Args:
      lines: of the main table (see ``benchmarks.contest.time_workload``).

    Returns:
      ``{"machine": rates, "one_core": rates or None, "rounds": [share, ...]}``, rates in FLOP/s and
      bytes/s; ``one_core`` is measured in a process that may use one core (None if there is only
      one, or on an accelerator).
    """
    import jax

    from benchmarks.fresh import fresh

    machine = rates()
    cores = sorted(os.sched_getaffinity(0))
    single = (
        fresh("benchmarks.limits:rates", cores=cores[:1])
        if jax.default_backend() == "cpu" and len(cores) > 1
        else None
    )
    return {
        "machine": machine,
        "one_core": single,
        "rounds": [share(line, machine) for line in lines or []],
    }


def rates() -> dict[str, float]:
    """Measures ``matmul`` in FLOP/s, ``copy`` and ``sweep`` (scaling in place) in bytes/s.

    Bytes that are read and bytes that are written both count.
    """
    return {"matmul": max(matmul_rate(side) for side in sides()), **memory_rates()}


def sides() -> tuple[int, ...]:
    """Sides of the matrices to try: which size is fastest depends on the caches."""
    import jax

    return (1024, 2048, 4096) if jax.default_backend() == "cpu" else (4096, 8192, 16384)


def matmul_rate(side: int) -> float:
    """FLOP/s of a float32 product of two square matrices, ``2 side**3`` operations."""
    import jax
    import jax.numpy as jnp

    a = jnp.full((side, side), 0.5)
    b = jnp.full((side, side), 2.0)
    product = jax.jit(jnp.matmul)
    return 2 * side**3 / best(lambda: product(a, b))


def memory_rates(count: int = 2**26) -> dict[str, float]:
    """Bytes/s of a copy into allocated memory, and of a sweep that scales in place.

    Args:
      count: floats of 4 bytes.
    """
    import jax
    import jax.numpy as jnp

    source = jnp.ones((count,), jnp.float32)
    copy = jax.jit(lambda x, out: out.at[:].set(x), donate_argnums=1)
    sweep = jax.jit(lambda out: out * 1.0001, donate_argnums=0)
    held = {"out": jnp.zeros((count,), jnp.float32)}

    def run(program: Callable) -> Any:
        held["out"] = program(held["out"])
        return held["out"]

    moved = 2 * 4 * count
    return {
        "copy": moved / best(lambda: run(lambda out: copy(source, out))),
        "sweep": moved / best(lambda: run(sweep)),
    }


def best(run: Callable[[], Any], turns: int = TURNS) -> float:
    """Seconds of the fastest of several runs, after one to warm up."""
    import jax

    jax.block_until_ready(run())
    seconds = []
    for _ in range(turns):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def cost(compiled: Any) -> Cost:
    """FLOPs and bytes of a compiled program as XLA counts them, loops' bodies once."""
    analysis = compiled.cost_analysis()
    if isinstance(analysis, list | tuple):
        analysis = analysis[0] if analysis else {}
    counts = analysis or {}
    return Cost(float(counts.get("flops", 0.0)), float(counts.get("bytes accessed", 0.0)))


def cost_of(function: Callable, *args: Any) -> Cost:
    """Cost of a function jitted alone, its scans counted for all their iterations."""
    import jax
    from jax.extend.core import jaxpr_as_fun

    traced = jax.jit(function).trace(*args)
    total = cost(traced.lower().compile())
    if not bodies_count_once():
        return total
    for length, body in scans(traced.jaxpr.jaxpr):
        shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in body.in_avals]
        total = total.plus(cost_of(jaxpr_as_fun(body), *shapes), length - 1)
    return total


def scans(jaxpr: Any) -> Iterator[tuple[int, Any]]:
    """Yields ``(iterations, body)`` of every scan of a jaxpr that is in no other scan."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation.params["length"], equation.params["jaxpr"]
            continue
        for value in equation.params.values():
            for part in value if isinstance(value, list | tuple) else (value,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from scans(inner)


def bodies_count_once() -> bool:
    """Whether this backend's analysis counts a loop's body once (as on CPUs) or every time."""
    import jax
    import jax.numpy as jnp

    x = jnp.zeros((64, 64))
    loop = jax.jit(lambda x: jax.lax.scan(lambda x, _: (x @ x, None), x, length=8)[0])
    once = jax.jit(lambda x: x @ x)
    return cost(loop.lower(x).compile()).flops < 2 * cost(once.lower(x).compile()).flops


def step_cost(workload: Any) -> Cost:
    """Cost of one local SGD step of a workload on one batch, without gathering the batch."""
    import jax
    import jax.numpy as jnp

    from benchmarks.floor import schedule
    from fedjax_sim.clients.learner import gradient
    from fedjax_sim.data.batching import fetch

    indices = jax.tree.map(lambda leaf: leaf[0], schedule(workload))
    batch = fetch(jax.tree.map(jnp.asarray, workload.table), indices)

    def step(variables: Any, batch: Any) -> Any:
        grad = gradient(workload.objective, variables, jax.random.key(0), batch)
        return jax.tree.map(lambda p, g: p - workload.lr * g, variables.params, grad.params)

    return cost_of(step, workload.init(), batch)


def share(line: dict[str, Any], machine: dict[str, float]) -> dict[str, Any]:
    """Computes which share of the machine's limits a timed round reaches.

    Args:
      line: a line of the main table: ``workload``, ``steps``, ``ours_s``, ``floor_s``.
      machine: what :func:`rates` returned.
    """
    from benchmarks.workloads import WORKLOADS

    step = step_cost(WORKLOADS[line["workload"]]())
    total = Cost(step.flops * line["steps"], step.bytes * line["steps"])
    bandwidth = max(machine["copy"], machine["sweep"])
    return {
        "workload": line["workload"],
        "step_flops": step.flops,
        "step_bytes": step.bytes,
        "ours_s": line["ours_s"],
        "flops_share": total.flops / line["ours_s"] / machine["matmul"],
        "flops_share_floor": total.flops / line["floor_s"] / machine["matmul"],
        "bytes_share": total.bytes / line["ours_s"] / bandwidth,
        # No program takes less time than its arithmetic at the matmul's rate. Bytes may come from a
        # cache, so they give no such bound.
        "least_s": total.flops / machine["matmul"],
    }


def main() -> None:
    """Runs the command of the module's docstring."""
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limits", description=__doc__, formatter_class=verbatim
    )
    parser.add_argument(
        "--only", default="", help="workloads to time, such as W1,W3; none by default"
    )
    parser.add_argument("--repeats", default=5, type=int)
    options = parser.parse_args()
    from fedjax_sim.runtime.devices import cores, use_cores

    use_cores()
    from benchmarks.contest import time_workload
    from benchmarks.workloads import WORKLOADS

    names = [name for name in options.only.split(",") if name]
    lines = [
        time_workload(WORKLOADS[name](), min(cores(), 2), "auto", options.repeats) for name in names
    ]
    print(json.dumps(measure(lines), indent=2))


if __name__ == "__main__":
    main()
