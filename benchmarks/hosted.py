"""What it costs that examples, or what clients remember, stay on the host. Called by :mod:`benchmarks.scale`, each in a process of its own.

Contenders take turns round by round, and all of them draw the same cohorts: a ratio within a turn compares the same work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROW = 194_680
"""Bytes that a client remembers in :func:`remembering`: SCAFFOLD's control variate for a model of 784 x 62 + 62 floats."""
UNTIMED = {"W1": 12, "W2": 6, "W6": 4}
"""Rounds before the first that counts: most sizes of a buffer have been met, and their programs compiled."""


def examples(name: str, devices: int, repeats: int, budget: float = 45.0) -> dict[str, Any]:
    """A workload's rounds with its examples on the devices, on the host, and on the host but packed only when a round is due.

    Returns:
      ``seconds`` (median) of each contender; ``ratio``, ``ratio_waiting`` of the second and third to the first, medians of ratios
      within a turn, and ``ratio_cpu``, the second's in processor time; ``low``, ``high``, the middle half of those ratios; and of the
      supply: ``bytes`` packed for a round, ``pack_s``, ``rate`` (bytes/s), ``make_s``, all that it takes to make one while nothing else
      runs, and ``wait_s``, what a round waits for one that is made behind.
    """
    from benchmarks.measure import interleave
    from benchmarks.workloads import WORKLOADS
    from fedjax_sim.engine import Engine

    set_up()
    workload = WORKLOADS[name]()
    packed: list[tuple[float, int]] = []
    waited: dict[str, list[float]] = {"host": [], "waiting": []}
    contenders = {"device": player(workload, Engine(devices=devices, data="device"))}
    with packing(packed):
        for each, ahead in (("host", True), ("waiting", False)):
            with supplying(waited[each], ahead):
                contenders[each] = player(workload, Engine(devices=devices, data="host"))
        for _ in range(UNTIMED[name]):
            for run in contenders.values():
                run()
        times = interleave(contenders, repeats, budget)
    ratios = np.asarray(times["host"].taken) / np.asarray(times["device"].taken)
    seconds, nbytes = (np.array(column) for column in zip(*packed, strict=True))
    return {
        "workload": name,
        "devices": devices,
        "rounds": len(ratios),
        "seconds": {each: time.median for each, time in times.items()},
        "ratio": times["host"].over(times["device"]),
        "ratio_waiting": times["waiting"].over(times["device"]),
        "ratio_cpu": cpu_over(times["host"], times["device"]),
        **dict(zip(("low", "high"), np.quantile(ratios, (0.25, 0.75)).tolist(), strict=True)),
        "bytes": float(np.median(nbytes)),
        "pack_s": float(np.median(seconds)),
        "rate": float(np.median(nbytes / seconds)),
        "make_s": float(np.median(waited["waiting"])),
        "wait_s": float(np.median(waited["host"])),
    }


def memory(devices: int, repeats: int, budget: float = 30.0) -> dict[str, Any]:
    """SCAFFOLD on W6: what clients remember on the devices, and in files on the host, of which a cohort's is lent.

    Returns:
      ``seconds`` (median) of ``device`` (all there), ``host`` (examples on the host) and ``kept`` (memory too), ``ratio`` of the third to
      the first, ``ratio_cpu``, the same in processor time, and ``ratio_kept`` of the third to the second; ``row``, bytes of one client's
      memory.
    """
    from benchmarks.measure import interleave
    from benchmarks.workloads import WORKLOADS
    from fedjax_sim.engine import Engine

    set_up()
    workload = WORKLOADS["W6"]()
    settings: dict[str, dict[str, Any]] = {
        "device": {"data": "device"},
        "host": {"data": "host"},
        "kept": {"client_memory": "host"},
    }
    contenders = {
        name: player(workload, Engine(devices=devices, **asked)) for name, asked in settings.items()
    }
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
    """Bytes that one client remembers."""
    import jax

    from fedjax_sim.core import tree

    return tree.nbytes(jax.eval_shape(lambda: workload.federated().memory(workload.init())))


def remembering(folder: str, repeats: int, budget: float = 60.0) -> dict[str, Any]:
    """SCAFFOLD with rows of 195 kB in files: 1,000,000 clients, whose table no device holds, and 1,000; and 1,000 on the device.

    Cohorts of 100 with 100 examples each, one device; examples of 784 floats overlap in memory, one number apart.

    Returns:
      ``seconds`` (medians), ``ratio`` of the large table to the small one, ``ratio_device`` of the small one to that on the device; and of
      the large one ``table`` bytes, ``rounds``, ``rows`` that were written, ``on_disk`` bytes, and ``snapshot_s``.
    """
    from benchmarks import crowds
    from benchmarks.measure import interleave

    set_up()
    settings = {"large": (10**6, "host"), "small": (1000, "host"), "device": (1000, "device")}
    made = {name: recalling(*asked, str(Path(folder) / name)) for name, asked in settings.items()}
    times = interleave({name: run for name, (_, run) in made.items()}, repeats, budget)
    keeping, begun = made["large"][0].host_memory, time.perf_counter()
    description = keeping.snapshot()
    return {
        "seconds": {name: each.median for name, each in times.items()},
        "ratio": times["large"].over(times["small"]),
        "ratio_device": times["small"].over(times["device"]),
        "table": 10**6 * ROW,
        "memory": ENOUGH,
        "rounds": description["round"],
        "rows": description["count"],
        "on_disk": crowds.on_disk(Path(folder) / "large"),
        "snapshot_s": time.perf_counter() - begun,
    }


ENOUGH = 2 * 10**9
"""Bytes that a round may take on the device in :func:`remembering`."""


def recalling(clients: int, keep: Any, folder: str) -> tuple[Any, Callable[[], Any]]:
    """The program, and a round after the other of it."""
    import jax

    import fedjax_sim as fs

    rows = clients * 100
    numbers = np.random.default_rng(0).standard_normal(rows + 784, np.float32)
    x = np.lib.stride_tricks.sliding_window_view(numbers, 784)[:rows]
    data = fs.data.population(
        x, (np.arange(rows) % 62).astype(np.int32), np.arange(clients + 1) * 100
    )
    network = fs.models.logistic(62)
    algorithm = fs.scaffold(fs.classification(network), lr=0.01)
    engine = fs.Engine(devices=1, data="host", client_memory=keep, memory_limit=ENOUGH)
    program = fs.make_round(algorithm, fs.samplers.uniform(100), data, fs.local_work(20), engine)
    if program.host_memory:
        program.host_memory.use(folder)
    return program, advancing(
        program, program.init(fs.Variables(*network.init(jax.random.key(0), np.asarray(x[:1]))))
    )


def set_up() -> None:
    """Two CPU devices, as everywhere here, and programs kept; to be called before JAX starts."""
    import jax

    from fedjax_sim.runtime.devices import enable_compilation_cache

    jax.config.update("jax_num_cpu_devices", 2)
    enable_compilation_cache()


def cpu_over(one: Any, other: Any) -> float:
    """Of two timings, the processor time of the first over the second's: the median of ratios within a turn."""
    return float(np.median(np.asarray(one.computed) / np.asarray(other.computed)))


def advancing(program: Any, state: Any) -> Callable[[], Any]:
    """A function that runs a round, from the state that the last one left."""
    held = {"state": state}

    def run() -> Any:
        held["state"], outcome = program.run(held["state"])
        return held["state"], outcome

    return run


def player(workload: Any, engine: Any) -> Callable[[], Any]:
    """A round after the other of a workload, its clients drawn anew for each."""
    from fedjax_sim import samplers
    from fedjax_sim.engine.program import make_round

    program = make_round(
        workload.federated(),
        samplers.uniform(len(workload.cohort)),
        workload.data,
        workload.work,
        engine,
    )
    return advancing(program, program.init(workload.init()))


@contextmanager
def packing(told: list[tuple[float, int]]) -> Iterator[None]:
    """While open, notes the seconds and bytes of whatever is packed."""
    from fedjax_sim.core import tree
    from fedjax_sim.engine.host import examples as supply

    pack = supply.pack

    def timed(data: Any, *rest: Any) -> Any:
        begun = time.perf_counter()
        made = pack(data, *rest)
        taken, rows = time.perf_counter() - begun, sum(int(table.size.sum()) for table in made)
        told.append((taken, rows * tree.nbytes((data.x[:1], data.y[:1]))))
        return made

    supply.pack = timed
    try:
        yield
    finally:
        supply.pack = pack


@contextmanager
def supplying(waited: list[float], ahead: bool) -> Iterator[None]:
    """Programs made while this is open note how long each round waits for its supply, once the round before is done; without
    ``ahead``, nothing is made behind a round."""
    import jax

    from fedjax_sim.engine import program

    make = program.make_cohort_loader

    def watched(*given: Any) -> Any:
        loader = make(*given)
        take_now = loader.take

        def take(state: Any) -> Any:
            jax.block_until_ready(state)
            begun = time.perf_counter()
            loaded = take_now(state)
            waited.append(time.perf_counter() - begun)
            return loaded

        loader.take = take
        if not ahead:
            loader.prepare = lambda state: None
        return loader

    program.make_cohort_loader = watched
    try:
        yield
    finally:
        program.make_cohort_loader = make
