"""Populations of a million clients and more, on disk.

Called by :mod:`benchmarks.scale`, each function in a process of its own. Clients have 100 examples
of 28 bytes. The files of the largest population are sparse: they have a size, take no disk and
read as zeros, and everything that depends on the number of clients is as it would be.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.watch import COHORT, EACH, FEATURES, _read_bytes, on_disk, watched

BLOCK = 20_000
"""Clients that are generated at a time."""


# ------------------------------------------------------------------------------------------ on disk


def write(folder: str, clients: int) -> dict[str, Any]:
    """Writes a prepared data set of random bytes, block by block."""
    from fedjax_sim.data import write_blocks

    begun = time.perf_counter()
    write_blocks(_blocks(clients), folder, name="crowd", classes=2)
    return {
        "seconds": time.perf_counter() - begun,
        "bytes": sum(path.stat().st_size for path in Path(folder).iterdir()),
    }


def _blocks(clients: int) -> Iterator[Any]:
    from fedjax_sim.data import federation, population

    rng = np.random.default_rng(0)
    for first in range(0, clients, BLOCK):
        count = min(BLOCK, clients - first)
        x = np.frombuffer(rng.bytes(count * EACH * FEATURES), np.uint8).reshape(-1, FEATURES)
        yield federation(population(x, x[:, 0] % 2, np.arange(count + 1) * EACH))


def holes(folder: str, clients: int) -> dict[str, Any]:
    """Writes a prepared data set whose arrays of examples are sparse files.

    Returns:
      ``seconds``; ``bytes``, the sum of the files' sizes; ``on_disk``, the bytes of disk they take.
    """
    from fedjax_sim.data.prepared.card import CARD, FORMAT, VERSION

    begun = time.perf_counter()
    out = Path(folder)
    rows = clients * EACH
    out.mkdir(parents=True)
    x = {"dtype": "uint8", "shape": [FEATURES]}
    y = {"dtype": "uint8", "shape": []}
    np.lib.format.open_memmap(out / "train.x.npy", "w+", np.uint8, (rows, FEATURES))
    np.lib.format.open_memmap(out / "train.y.npy", "w+", np.uint8, (rows,))
    np.save(out / "train.offsets.npy", np.arange(clients + 1) * EACH)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": ""} for path in out.iterdir()}
    card = {
        "format": FORMAT,
        "version": VERSION,
        "name": "holes",
        "source": "",
        "clients": clients,
        "named": False,
        "examples": {"train": rows, "test": 0, "central": 0},
        "x": x,
        "y": y,
        "classes": 2,
        "about": {},
        "files": files,
        "content": "",
    }
    (out / CARD).write_text(json.dumps(card))
    return {
        "on_disk": on_disk(out),
        "bytes": sum(file["bytes"] for file in files.values()),
        "seconds": time.perf_counter() - begun,
    }


# ------------------------------------------------------------------------------------------- rounds


def rounds(large: str, small: str, repeats: int, budget: float = 60.0) -> dict[str, Any]:
    """Times a round of a cohort of 1,000 from a large population and from a small one, in turn.

    One device, examples on the host. The cohorts of the large population are spread over its
    files, which the page cache holds as far as it can.

    Args:
      large: folder of the large population.
      small: folder of the small population.
      repeats: rounds of each at most.
      budget: seconds of all rounds.

    Returns:
      ``ratio`` of the large to the small, median of ratios within a turn; ``ratio_cpu``, the same
      of processor time; ``seconds`` (medians); ``wait_s``, how long a round of the large one waits
      for its cohort where that is loaded during the round before; and ``make_s``, how long it takes
      to load one while nothing else runs.
    """
    from benchmarks.hosted import advancing, cpu_over, set_up, supplying
    from benchmarks.measure import interleave
    from fedjax_sim.data import open_prepared

    set_up()
    waits: dict[str, list[float]] = {"large": [], "small": [], "waiting": []}
    contenders = {}
    for name, folder in (("large", large), ("small", small), ("waiting", large)):
        with supplying(waits[name], ahead=name != "waiting"):
            contenders[name] = advancing(*program_of(open_prepared(folder).train, COHORT))
    times = interleave(contenders, repeats, budget)
    return {
        "seconds": {name: time.median for name, time in times.items()},
        "ratio": times["large"].over(times["small"]),
        "ratio_cpu": cpu_over(times["large"], times["small"]),
        "rounds": len(times["large"].taken),
        "wait_s": float(np.median(waits["large"])),
        "make_s": float(np.median(waits["waiting"])),
    }


def program_of(data: Any, cohort: int, model: str = "logistic") -> tuple[Any, Any]:
    """Returns ``(program, state)`` of FedAvg: one epoch in batches of 20, on one device."""
    import jax

    import fedjax_sim as fs

    network = fs.models.REGISTRY[model](2)
    algorithm = fs.fedavg(fs.classification(network), lr=0.05)
    engine = fs.Engine(devices=1, data="host")
    program = fs.make_round(algorithm, fs.samplers.uniform(cohort), data, fs.local_work(20), engine)
    variables = fs.Variables(*network.init(jax.random.key(0), np.asarray(data.x[:1])))
    return program, program.init(variables)


def living(
    folder: str, cohort: int = COHORT, rounds: int = 30, model: str = "logistic"
) -> dict[str, Any]:
    """Measures memory and time of a process that only runs rounds on a folder's data.

    Memory is anonymous memory (``RssAnon``), sampled every few milliseconds: what belongs to the
    process alone. Pages of the data files that it has read count as resident, too
    (``peak_resident``, VmHWM), but the operating system can take them back at any time.

    Args:
      folder: a prepared data set.
      cohort: clients of a round.
      rounds: rounds that are run.
      model: name of a registered model.

    Returns:
      Bytes: ``model``, the server's; ``imported`` with JAX started, ``opened``, ``ready`` with
      program and first state made, ``peak`` (the largest of all), ``peak_resident``; seconds:
      ``open_s`` of the data, ``make_s`` of program and state, ``first_s`` of the first round and
      ``round_s`` (median of the others).
    """
    import jax

    import fedjax_sim as fs
    from benchmarks.growth import reset_peak, resident
    from fedjax_sim.core import tree
    from fedjax_sim.data import open_prepared

    fs.enable_compilation_cache()
    jax.block_until_ready(jax.device_put(0))
    imported = resident("RssAnon")
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    with watched() as samples:
        data = open_prepared(folder).train
        open_s = lap()
        opened = resident("RssAnon")
        program, state = program_of(data, cohort, model)
        make_s = lap()
        reset_peak()
        ready = resident("RssAnon")
        lap()
        seconds = []
        for _ in range(rounds):
            state, _ = jax.block_until_ready(program.run(state))
            seconds.append(lap())
    return {
        "cohort": cohort,
        "model": tree.nbytes(state.algorithm),
        "imported": imported,
        "opened": opened,
        "ready": ready,
        "peak": max(samples),
        "peak_resident": resident("VmHWM"),
        "open_s": open_s,
        "make_s": make_s,
        "first_s": seconds[0],
        "round_s": float(np.median(seconds[1:] or seconds)),
    }


def predicted(folder: str, cohort: int = COHORT, model: str = "logistic") -> dict[str, int]:
    """Returns the bytes that `fedjax-sim check` predicts for such a run.

    Returns:
      ``device``, the bytes on the device; ``data``, those of them that hold packed examples; and
      ``host``.
    """
    from tempfile import NamedTemporaryFile

    from fedjax_sim.experiments.build import build
    from fedjax_sim.experiments.config import load_config
    from fedjax_sim.experiments.estimate import estimate

    text = f"""
[task]
name = "prepared"
source = "{folder}"
model = "{model}"
[algorithm]
name = "fedavg"
[sampler]
kind = "uniform"
cohort = {cohort}
[local_work]
batch_size = 20
[engine]
devices = 1
data = "host"
"""
    with NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        costs = estimate(build(load_config(file.name)))
    return {"cohort": cohort, "device": costs.device, "data": costs.data, "host": costs.host}


def cold(folder: str, times: int = 4) -> dict[str, float]:
    """Measures packing a cohort of 1,000 whose examples are not in the page cache.

    Returns:
      Medians: ``cold_s``, seconds; ``cold_bytes``, bytes read from the disk; ``wanted_bytes``,
      bytes of the cohort's examples.
    """
    import jax

    from benchmarks.hosted import advancing, packing, set_up, supplying
    from fedjax_sim.data import open_prepared

    set_up()
    packed: list[tuple[float, int]] = []
    read = []
    with packing(packed), supplying([], ahead=False):
        run = advancing(*program_of(open_prepared(folder).train, COHORT))
        for _ in range(times):
            _drop_cached_pages(Path(folder))
            before = _read_bytes()
            jax.block_until_ready(run())
            read.append(_read_bytes() - before)
    seconds, wanted = np.median(packed, axis=0).tolist()
    return {"cold_s": seconds, "cold_bytes": float(np.median(read)), "wanted_bytes": wanted}


def _drop_cached_pages(folder: Path) -> None:
    """Asks the operating system to drop the pages of the examples from its cache."""
    for name in ("train.x.npy", "train.y.npy"):
        with (folder / name).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
