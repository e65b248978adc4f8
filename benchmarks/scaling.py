"""What a large population and a second device do to a round. Called by :mod:`benchmarks.growth`, each in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.growth import in_turn, middle, program_of, timed

POPULATIONS = (1000, 1_000_000)


# ------------------------------------------------------------------------------------------------------------ population


def populations(repeats: int = 7, cohort: int = 50, rounds: int = 20) -> dict[str, Any]:
    """Seconds per client-step with the uniform sampler on 1,000 and on 1,000,000 clients, cohort and size law the same; one device.

    Examples are 8 bytes, so that a step is next to nothing and overhead shows. ``shared`` are 1,000,000 clients who own the examples
    of the 1,000, a thousand times over: beside ``small`` it shows what the number of clients costs (sampling, looking up, dealing).
    ``large`` have 1.8 GB of examples of their own: beside ``shared`` it shows what reading from all over the memory costs.
    """
    import jax

    from fedjax_sim import samplers

    jax.config.update("jax_num_cpu_devices", 1)
    small, large = (tiny(clients) for clients in POPULATIONS)
    offset, size = (
        jax.numpy.tile(column, POPULATIONS[1] // POPULATIONS[0])
        for column in (small.offset, small.size)
    )
    tables = {"small": small, "shared": small._replace(offset=offset, size=size), "large": large}
    runs = {
        name: timed(program_of(table, samplers.uniform(cohort), 1), rounds)
        for name, table in tables.items()
    }
    taken = in_turn(runs, repeats)

    def share(measure: str, one: str, other: str) -> float:
        ratios = [
            getattr(a, measure) / getattr(b, measure)
            for a, b in zip(taken[one], taken[other], strict=True)
        ]
        return 1 - float(np.median(ratios))  # of ratios within a turn: longer disturbances fall out

    return {
        "clients": list(POPULATIONS),
        "cohort": cohort,
        "times": {name: middle(each) for name, each in taken.items()},
        "overhead_share": share("wall", "small", "shared"),
        "overhead_share_cpu": share("cpu", "small", "shared"),
        "reading_share_cpu": share("cpu", "shared", "large"),
    }


def tiny(clients: int) -> Any:
    """A table of clients with W1's size law, 8 random bytes an example, 62 classes. Built on the device: one copy is enough."""
    import jax.numpy as jnp

    from benchmarks.workloads import lognormal_sizes
    from fedjax_sim.data.population import Table

    rng = np.random.default_rng(0)
    sizes = lognormal_sizes(rng, clients, 200, 0.6, 10, 800)
    ends = np.cumsum(sizes)
    x, y = rng.integers(0, 256, (ends[-1], 8), np.uint8), rng.integers(0, 62, ends[-1], np.uint8)
    return Table(
        jnp.asarray(x),
        jnp.asarray(y),
        jnp.asarray(ends - sizes, jnp.int32),
        jnp.asarray(sizes, jnp.int32),
    )


# --------------------------------------------------------------------------------------------------------------- devices


def speed_up(name: str = "W2", repeats: int = 5) -> dict[str, Any]:
    """A workload on one CPU device and on two.

    One device may use both cores inside a product or a convolution, so it is timed a second time with all its threads on one core:
    ``speed_up`` is one device over two devices, ``core_speed_up`` is one core over two devices on two cores, and ``balance`` what
    dealing whole clients to two shards allows (all steps over those of the longer shard).
    """
    import jax

    from benchmarks.contest import ours
    from benchmarks.measure import interleave
    from benchmarks.workloads import WORKLOADS

    jax.config.update("jax_num_cpu_devices", 2)
    workload = WORKLOADS[name]()
    one, two = ours(workload, 1, "auto"), ours(workload, 2, "auto")
    contenders = {"one": one, "one_core": pinned(one), "two": two}
    times = interleave(contenders, repeats, budget=150)
    return {
        "workload": name,
        "seconds": {
            key: {"median": t.median, "low": t.low, "high": t.high, "cores": t.cores}
            for key, t in times.items()
        },
        "speed_up": times["one"].over(times["two"]),
        "core_speed_up": times["one_core"].over(times["two"]),
        "balance": balance(workload),
    }


def balance(workload: Any, shards: int = 2) -> float:
    """Steps of the cohort over those of the longest shard: the most that so many shards can gain."""
    import jax.numpy as jnp

    from fedjax_sim.data.batching import info
    from fedjax_sim.engine.lanes.schedule import assign_to_shards, by_shard
    from fedjax_sim.samplers import roster

    sizes = jnp.asarray(workload.data.sizes, jnp.int32)
    cohort = roster(jnp.asarray(workload.cohort), population_info(workload.work, sizes))
    steps = np.asarray(by_shard(cohort, assign_to_shards(cohort, shards)).members.steps).sum(axis=1)
    return float(steps.sum() / steps.max())


def pinned(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same with every thread of this process on one core while it runs (Linux only; elsewhere unchanged)."""

    def alone() -> Any:
        import jax

        with one_core():
            return jax.block_until_ready(run())

    return alone if hasattr(os, "sched_setaffinity") else run


@contextmanager
def one_core() -> Iterator[None]:
    """All threads that are there now share the first core that we may use."""
    cores = os.sched_getaffinity(0)
    threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    _allow(threads, {min(cores)})
    try:
        yield
    finally:
        _allow(threads, cores)


def _allow(threads: list[int], cores: set[int]) -> None:
    for thread in threads:
        try:
            os.sched_setaffinity(thread, cores)
        except ProcessLookupError:  # it has ended
            continue
