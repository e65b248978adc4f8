"""How a large population and a second device change the time of a round.

Called by :mod:`benchmarks.growth`, each function in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.growth import in_turn, middle, program_of, timed

SMALL = 1000
LARGE = 1_000_000


# --------------------------------------------------------------------------------------- population


def populations(repeats: int = 7, cohort: int = 50, rounds: int = 20) -> dict[str, Any]:
    """Times rounds of the uniform sampler on 1,000 and on 1,000,000 clients, on one device.

    The cohort and the distribution of sizes are the same. Examples are 8 bytes, so that a step
    takes almost no time and overhead shows. ``shared`` are 1,000,000 clients that own the examples
    of the 1,000, each a thousand times: compared with ``small`` it shows what the number of clients
    costs (sampling, gathering, assigning to shards). ``large`` are 1,000,000 clients with 1.8 GB of
    examples of their own: compared with ``shared`` it shows what scattered reads cost.

    Args:
      repeats: timings of each population.
      cohort: clients of a round.
      rounds: rounds of a timing.

    Returns:
      ``times``, seconds per client-step of each population (see ``growth.middle``);
      ``overhead_share``, share of a round of ``shared`` that ``small`` does not need, of the clock,
      and ``overhead_share_cpu`` of processor time; ``reading_share_cpu``, share of a round of
      ``large`` that ``shared`` does not need.
    """
    import jax

    from fedjax_sim import samplers

    jax.config.update("jax_num_cpu_devices", 1)
    small = tiny(SMALL)
    shared = small._replace(
        offset=jax.numpy.tile(small.offset, LARGE // SMALL),
        size=jax.numpy.tile(small.size, LARGE // SMALL),
    )
    tables = {"small": small, "shared": shared, "large": tiny(LARGE)}
    runs = {
        name: timed(program_of(table, samplers.uniform(cohort), 1), rounds)
        for name, table in tables.items()
    }
    taken = in_turn(runs, repeats)

    def share(measure: str, fast: str, slow: str) -> float:
        """1 - the median of ratios within a turn, which longer disturbances do not change."""
        ratios = [
            getattr(numerator, measure) / getattr(denominator, measure)
            for numerator, denominator in zip(taken[fast], taken[slow], strict=True)
        ]
        return 1 - float(np.median(ratios))

    return {
        "clients": [SMALL, LARGE],
        "cohort": cohort,
        "times": {name: middle(times) for name, times in taken.items()},
        "overhead_share": share("wall", "small", "shared"),
        "overhead_share_cpu": share("cpu", "small", "shared"),
        "reading_share_cpu": share("cpu", "shared", "large"),
    }


def tiny(clients: int) -> Any:
    """A table on the device: W1's distribution of sizes, 8 random bytes an example, 62 classes."""
    import jax.numpy as jnp

    from benchmarks.workloads import lognormal_sizes
    from fedjax_sim.data.population import Table

    rng = np.random.default_rng(0)
    sizes = lognormal_sizes(rng, clients, 200, 0.6, 10, 800)
    ends = np.cumsum(sizes)
    return Table(
        jnp.asarray(rng.integers(0, 256, (ends[-1], 8), np.uint8)),
        jnp.asarray(rng.integers(0, 62, ends[-1], np.uint8)),
        jnp.asarray(ends - sizes, jnp.int32),
        jnp.asarray(sizes, jnp.int32),
    )


# ------------------------------------------------------------------------------------------ devices


def speed_up(name: str = "W2", repeats: int = 5) -> dict[str, Any]:
    """Times a workload on one CPU device and on two.

    One device may use both cores inside a product or a convolution, so it is timed a second time
    with all its threads on one core.

    Args:
      name: of a workload.
      repeats: rounds of each.

    Returns:
      ``seconds`` of each; ``speed_up``, one device over two devices; ``core_speed_up``, one core
      over two devices on two cores; and ``balance``, the most that assigning whole clients to two
      shards allows (all steps over those of the longer shard).
    """
    import jax

    from benchmarks.contest import ours
    from benchmarks.measure import interleave
    from benchmarks.workloads import WORKLOADS

    jax.config.update("jax_num_cpu_devices", 2)
    workload = WORKLOADS[name]()
    one = ours(workload, 1, "auto")
    two = ours(workload, 2, "auto")
    contenders = {"one": one, "one_core": pinned(one), "two": two}
    times = interleave(contenders, repeats, budget=150)
    return {
        "workload": name,
        "seconds": {
            name: {"median": t.median, "low": t.low, "high": t.high, "cores": t.cores}
            for name, t in times.items()
        },
        "speed_up": times["one"].over(times["two"]),
        "core_speed_up": times["one_core"].over(times["two"]),
        "balance": balance(workload),
    }


def balance(workload: Any, shards: int = 2) -> float:
    """Steps of the cohort over those of the longest shard: the largest possible speed-up."""
    import jax.numpy as jnp

    from fedjax_sim.data.batching import population_info
    from fedjax_sim.engine.lanes.schedule import assign_to_shards, by_shard
    from fedjax_sim.samplers import roster

    sizes = jnp.asarray(workload.data.sizes, jnp.int32)
    cohort = roster(jnp.asarray(workload.cohort), population_info(workload.local_work, sizes))
    sharded = by_shard(cohort, assign_to_shards(cohort, shards))
    steps = np.asarray(sharded.members.steps).sum(axis=1)
    return float(steps.sum() / steps.max())


def pinned(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same, with every thread of this process on one core while it runs.

    Linux only; elsewhere the function is returned unchanged.
    """

    def run_on_one_core() -> Any:
        import jax

        with one_core():
            return jax.block_until_ready(run())

    return run_on_one_core if hasattr(os, "sched_setaffinity") else run


@contextmanager
def one_core() -> Iterator[None]:
    """While open, all threads of this process run on the first core that it may use."""
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
        except ProcessLookupError:  # the thread has ended
            continue
