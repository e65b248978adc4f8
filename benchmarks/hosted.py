"""What it costs to keep examples, or client memory, on the host.

Called by :mod:`benchmarks.scale`, each function in a process of its own. Contenders run in turn,
round by round, and all of them sample the same cohorts: a ratio within a turn compares the same
work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROW = 194_680
"""Bytes of a client's memory in :func:`remembering`: SCAFFOLD's control variate for a model of
784 x 62 + 62 floats."""
UNTIMED = {"W1": 12, "W2": 6, "W6": 4}
"""Rounds before the first that is timed: by then most buffer sizes have occurred and their programs
are compiled."""
MEMORY_LIMIT = 2 * 10**9
"""Bytes that a round may take on the device in :func:`remembering`."""


def examples(name: str, devices: int, repeats: int, budget: float = 45.0) -> dict[str, Any]:
    """Times a workload's rounds with its examples on the devices and on the host.

    Three contenders: ``device``; ``host``, where a cohort is loaded during the round before; and
    ``waiting``, where it is loaded when its round begins.

    Args:
      name: of a workload.
      devices: number of devices.
      repeats: rounds of each contender at most.
      budget: seconds of all rounds.

    Returns:
      ``seconds`` (median) of each contender; ``ratio`` and ``ratio_waiting`` of ``host`` and
      ``waiting`` to ``device``, medians of ratios within a turn; ``ratio_cpu``, that of ``host`` in
      processor time; ``low`` and ``high``, the quartiles of its ratios; and of the loaded cohorts:
      ``bytes`` packed for a round, ``pack_s``, ``rate`` (bytes/s), ``make_s``, seconds to load one
      while nothing else runs, and ``wait_s``, how long a round of ``host`` waits for its cohort.
    """
    from benchmarks.measure import interleave
    from benchmarks.workloads import WORKLOADS
    from fedjax_sim.engine import Engine

    set_up()
    workload = WORKLOADS[name]()
    packed: list[tuple[float, int]] = []
    waits: dict[str, list[float]] = {"host": [], "waiting": []}
    contenders = {"device": player(workload, Engine(devices=devices, data="device"))}
    with packing(packed):
        for kind, ahead in (("host", True), ("waiting", False)):
            with supplying(waits[kind], ahead):
                contenders[kind] = player(workload, Engine(devices=devices, data="host"))
        for _ in range(UNTIMED[name]):
            for run in contenders.values():
                run()
        times = interleave(contenders, repeats, budget)
    ratios = np.asarray(times["host"].taken) / np.asarray(times["device"].taken)
    low, high = np.quantile(ratios, (0.25, 0.75)).tolist()
    seconds, nbytes = (np.array(column) for column in zip(*packed, strict=True))
    return {
        "workload": name,
        "devices": devices,
        "rounds": len(ratios),
        "seconds": {kind: time.median for kind, time in times.items()},
        "ratio": times["host"].over(times["device"]),
        "ratio_waiting": times["waiting"].over(times["device"]),
        "ratio_cpu": cpu_over(times["host"], times["device"]),
        "low": low,
        "high": high,
        "bytes": float(np.median(nbytes)),
        "pack_s": float(np.median(seconds)),
        "rate": float(np.median(nbytes / seconds)),
        "make_s": float(np.median(waits["waiting"])),
        "wait_s": float(np.median(waits["host"])),
    }


def memory(devices: int, repeats: int, budget: float = 30.0) -> dict[str, Any]:
    """Times SCAFFOLD on W6 with client memory on the devices and in files on the host.

    Args:
      devices: number of devices.
      repeats: rounds of each contender at most.
      budget: seconds of all rounds.

    Returns:
      ``seconds`` (median) of ``device`` (all on the device), ``host`` (examples on the host) and
      ``kept`` (client memory, too); ``ratio`` of ``kept`` to ``device``; ``ratio_cpu``, the same in
      processor time; ``ratio_kept`` of ``kept`` to ``host``; ``row``, bytes of one client's memory.
    """
    from benchmarks.measure import interleave
    from benchmarks.workloads import WORKLOADS
    from fedjax_sim.engine import Engine

    set_up()
    workload = WORKLOADS["W6"]()
    engines = {
        "device": Engine(devices=devices, data="device"),
        "host": Engine(devices=devices, data="host"),
        "kept": Engine(devices=devices, client_memory="host"),
    }
    contenders = {name: player(workload, engine) for name, engine in engines.items()}
    times = interleave(contenders, repeats, budget)
    return {
        "devices": devices,
        "cohort": len(workload.cohort),
        "row": row_bytes(workload),
        "seconds": {name: time.median for name, time in times.items()},
        "ratio": times["kept"].over(times["device"]),
        "ratio_cpu": cpu_over(times["kept"], times["device"]),
        "ratio_kept": times["kept"].over(times["host"]),
    }


def row_bytes(workload: Any) -> int:
    """Bytes of one client's memory."""
    import jax

    from fedjax_sim.core import tree

    return tree.nbytes(jax.eval_shape(lambda: workload.federated().memory(workload.init())))


def remembering(folder: str, repeats: int, budget: float = 60.0) -> dict[str, Any]:
    """Times SCAFFOLD with rows of 195 kB in files, whose table fits on no device.

    Three contenders: 1,000,000 clients in files, 1,000 clients in files, 1,000 on the device.
    Cohorts of 100 with 100 examples each, one device; examples of 784 floats overlap in memory,
    shifted by one float each.

    Args:
      folder: of the files.
      repeats: rounds of each contender at most.
      budget: seconds of all rounds.

    Returns:
      ``seconds`` (medians); ``ratio`` of the large table to the small one; ``ratio_device`` of the
      small one in files to that on the device; and of the large one ``table`` bytes, ``memory``,
      the limit of the device's memory, ``rounds``, ``rows`` that were written, ``on_disk`` bytes,
      and ``snapshot_s``.
    """
    from benchmarks.measure import interleave
    from benchmarks.watch import on_disk

    set_up()
    large = Path(folder) / "large"
    program, run_large = recalling(10**6, "host", large)
    _, run_small = recalling(1000, "host", Path(folder) / "small")
    _, run_device = recalling(1000, "device", Path(folder) / "device")
    contenders = {"large": run_large, "small": run_small, "device": run_device}
    times = interleave(contenders, repeats, budget)
    begun = time.perf_counter()
    description = program.host_memory.snapshot()
    return {
        "seconds": {name: timing.median for name, timing in times.items()},
        "ratio": times["large"].over(times["small"]),
        "ratio_device": times["small"].over(times["device"]),
        "table": 10**6 * ROW,
        "memory": MEMORY_LIMIT,
        "rounds": description["round"],
        "rows": description["count"],
        "on_disk": on_disk(large),
        "snapshot_s": time.perf_counter() - begun,
    }


def recalling(clients: int, client_memory: Any, folder: Path) -> tuple[Any, Callable[[], Any]]:
    """Returns ``(program, run)`` of SCAFFOLD; ``run()`` advances it by a round.

    Args:
      clients: N, with 100 examples each.
      client_memory: where their memory is kept, ``"host"`` or ``"device"``.
      folder: of the rows that are kept on the host.
    """
    import jax

    import fedjax_sim as fs

    rows = clients * 100
    floats = np.random.default_rng(0).standard_normal(rows + 784, np.float32)
    x = np.lib.stride_tricks.sliding_window_view(floats, 784)[:rows]
    labels = (np.arange(rows) % 62).astype(np.int32)
    data = fs.data.population(x, labels, np.arange(clients + 1) * 100)
    network = fs.models.logistic(62)
    algorithm = fs.scaffold(fs.classification(network), lr=0.01)
    engine = fs.Engine(
        devices=1, data="host", client_memory=client_memory, memory_limit=MEMORY_LIMIT
    )
    program = fs.make_round(algorithm, fs.samplers.uniform(100), data, fs.local_work(20), engine)
    if program.host_memory:
        program.host_memory.use(str(folder))
    variables = fs.Variables(*network.init(jax.random.key(0), np.asarray(x[:1])))
    return program, advancing(program, program.init(variables))


def set_up() -> None:
    """Makes two CPU devices and enables the compilation cache; to be called before JAX starts."""
    import jax

    from fedjax_sim.runtime.devices import enable_compilation_cache

    jax.config.update("jax_num_cpu_devices", 2)
    enable_compilation_cache()


def cpu_over(timing: Any, baseline: Any) -> float:
    """Ratio of two timings' processor time: the median of ratios within a turn."""
    return float(np.median(np.asarray(timing.computed) / np.asarray(baseline.computed)))


def advancing(program: Any, state: Any) -> Callable[[], Any]:
    """Returns a function that runs a round from the state after its last call."""
    held = {"state": state}

    def run() -> Any:
        held["state"], outcome = program.run(held["state"])
        return held["state"], outcome

    return run


def player(workload: Any, engine: Any) -> Callable[[], Any]:
    """Returns a function that runs a workload's next round, with a new random cohort."""
    from fedjax_sim import samplers
    from fedjax_sim.engine.program import make_round

    program = make_round(
        workload.federated(),
        samplers.uniform(len(workload.cohort)),
        workload.data,
        workload.local_work,
        engine,
    )
    return advancing(program, program.init(workload.init()))


@contextmanager
def packing(packed: list[tuple[float, int]]) -> Iterator[None]:
    """While open, appends seconds and bytes of every cohort that is packed to a list."""
    from fedjax_sim.core import tree
    from fedjax_sim.engine.host import examples as host_examples

    pack = host_examples.pack

    def timed(data: Any, *rest: Any) -> Any:
        begun = time.perf_counter()
        tables = pack(data, *rest)
        seconds = time.perf_counter() - begun
        rows = sum(int(table.size.sum()) for table in tables)
        packed.append((seconds, rows * tree.nbytes((data.x[:1], data.y[:1]))))
        return tables

    host_examples.pack = timed
    try:
        yield
    finally:
        host_examples.pack = pack


@contextmanager
def supplying(waits: list[float], ahead: bool) -> Iterator[None]:
    """While open, programs are made whose rounds note how long they wait for their cohort.

    Args:
      waits: seconds of each round are appended to it, counted after the round before has ended.
      ahead: whether cohorts are loaded during the round before.
    """
    import jax

    from fedjax_sim.engine import program

    make = program.make_cohort_loader

    def make_watched(*arguments: Any) -> Any:
        loader = make(*arguments)
        take_cohort = loader.take

        def take(state: Any) -> Any:
            jax.block_until_ready(state)
            begun = time.perf_counter()
            cohort = take_cohort(state)
            waits.append(time.perf_counter() - begun)
            return cohort

        loader.take = take
        if not ahead:
            loader.prepare = lambda state: None
        return loader

    program.make_cohort_loader = make_watched
    try:
        yield
    finally:
        program.make_cohort_loader = make
