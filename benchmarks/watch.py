"""What a process of a large population takes: memory, disk, seconds of the sampler and of rows.

Called by :mod:`benchmarks.crowds`, :mod:`benchmarks.hosted` and :mod:`benchmarks.scale`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

EACH = 100
"""Examples of a client."""
FEATURES = 28
"""Bytes of an example."""
COHORT = 1000

ROW_BYTES = 1024
ROWS = 10_000
ROWS_PER_CALL = 1000


def on_disk(folder: Path) -> int:
    """Bytes of disk that a folder's files take; holes in them take none."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


@contextmanager
def watched(pause: float = 0.003) -> Iterator[list[int]]:
    """Samples the anonymous memory of this process while the context is open.

    Args:
      pause: seconds between two samples.

    Returns:
      A list of bytes that grows.
    """
    from benchmarks.growth import resident

    samples = [resident("RssAnon")]
    closed = threading.Event()

    def sample() -> None:
        while not closed.wait(pause):
            samples.append(resident("RssAnon"))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        closed.set()
        thread.join()


def _read_bytes() -> int:
    """Bytes that this process has read from a disk, not from the page cache."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def numbers(clients: int) -> dict[str, Any]:
    """Measures what grows with the number of clients and needs no example.

    Returns:
      ``sample_s``, seconds in which the uniform sampler draws a cohort of 1,000 and assigns it to
      shards; and of an empty row store for this number of clients: ``vault_s``, seconds to open
      it, ``vault_bytes``, anonymous memory that it takes once 10,000 clients spread over the
      population have a row of 1 kB, and ``rows_s``, the seconds in which 1,000 rows are read.
    """
    from tempfile import TemporaryDirectory

    from benchmarks.growth import resident
    from fedjax_sim.engine.host.rows import open_row_store

    ids = _spread_ids(clients)
    before = resident("RssAnon")
    begun = time.perf_counter()
    with (
        TemporaryDirectory() as folder,
        open_row_store(folder, np.zeros(ROW_BYTES, np.uint8), clients) as store,
    ):
        open_s = time.perf_counter() - begun
        for first in range(0, len(ids), ROWS_PER_CALL):
            some = ids[first : first + ROWS_PER_CALL]
            store.write(some, np.ones((len(some), ROW_BYTES), np.uint8))
        begun = time.perf_counter()
        store.read(ids[:ROWS_PER_CALL])
        rows_s = time.perf_counter() - begun
        store_bytes = resident("RssAnon") - before
    return {
        "clients": clients,
        "vault_s": open_s,
        "vault_bytes": store_bytes,
        "rows_s": rows_s,
        "sample_s": sampling(clients),
    }


def _spread_ids(clients: int) -> np.ndarray:
    """At most 10,000 distinct client ids from the whole population, in random order."""
    million = 10**6
    ids = np.random.default_rng(0).permutation(min(clients, million))[:ROWS]
    return ids * max(1, clients // million)


def sampling(clients: int, cohort: int = COHORT, times: int = 30) -> float:
    """Median seconds in which the host draws a cohort and assigns it to shards.

    Sizes and steps of all clients are on the device before.
    """
    from functools import partial

    import jax

    from fedjax_sim import samplers
    from fedjax_sim.data import local_work
    from fedjax_sim.data.batching import population_info
    from fedjax_sim.engine import Engine, make_plan
    from fedjax_sim.engine.round import sample_cohort

    work = local_work(20)
    facts = population_info(work, jax.device_put(np.full(clients, EACH, np.int32)))
    plan = make_plan(Engine(devices=1), EACH)
    sample = jax.jit(partial(sample_cohort, samplers.uniform(cohort), plan, work))
    seconds = []
    for number in range(times + 1):
        begun = time.perf_counter()
        jax.tree.map(np.asarray, sample(facts, np.uint32(0), np.int32(number), ()))
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds[1:]))
