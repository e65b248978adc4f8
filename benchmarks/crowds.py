"""Populations of a million clients and more, on disk. Called by :mod:`benchmarks.scale`, each function in a process of its own.

Clients have 100 examples of 28 bytes. Those of the larger population are files full of holes: they have a size, take no disk and read as
zeros, and all that depends on the number of clients is as it would be.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

EACH, FEATURES, COHORT = 100, 28, 1000
BLOCK = 20_000
"""Clients that are generated at a time."""


# ---------------------------------------------------------------------------------------------------------------- on disk


def write(folder: str, clients: int) -> dict[str, Any]:
    """Writes a prepared data set of random bytes, block by block; returns ``seconds`` and ``bytes``."""
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
    """The same with examples that are holes in files; returns ``seconds``, ``bytes`` that the files say and that the disk gave."""
    from fedjax_sim.data.prepared.card import CARD, FORMAT, VERSION

    begun, out, rows = time.perf_counter(), Path(folder), clients * EACH
    out.mkdir(parents=True)
    x, y = ({"dtype": "uint8", "shape": shape} for shape in ([FEATURES], []))
    for name, of in (("train.x", x), ("train.y", y)):
        np.lib.format.open_memmap(out / f"{name}.npy", "w+", np.uint8, (rows, *of["shape"]))
    np.save(out / "train.offsets.npy", np.arange(clients + 1) * EACH)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": ""} for path in out.iterdir()}
    facts = {
        "clients": clients,
        "named": False,
        "examples": {"train": rows, "test": 0, "central": 0},
        "x": x,
        "y": y,
        "classes": 2,
    }
    card = {
        "format": FORMAT,
        "version": VERSION,
        "name": "holes",
        "source": "",
        **facts,
        "about": {},
        "files": files,
        "content": "",
    }
    (out / CARD).write_text(json.dumps(card))
    taken, said = on_disk(out), sum(about["bytes"] for about in files.values())
    return {"seconds": time.perf_counter() - begun, "bytes": said, "on_disk": taken}


def on_disk(folder: Path) -> int:
    """Bytes of disk that a folder's files take."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


# ----------------------------------------------------------------------------------------------------------------- rounds


def rounds(large: str, small: str, repeats: int, budget: float = 60.0) -> dict[str, Any]:
    """A round of a cohort of 1,000 from a large population and from a small one, in turn; one device, examples on the host.

    Cohorts of the large one lie all over its files, which the system has in memory here as far as it can.

    Returns:
      ``ratio`` of the large to the small, median of ratios within a turn, ``ratio_cpu`` of processor time, ``seconds`` (medians),
      ``wait_s`` and ``make_s``, what a round of the large one waits for its supply where that is made behind, and all that it takes to
      make one while nothing else runs.
    """
    from benchmarks.hosted import advancing, cpu_over, set_up, supplying
    from benchmarks.measure import interleave
    from fedjax_sim.data import open_prepared

    set_up()
    waited: dict[str, list[float]] = {"large": [], "small": [], "waiting": []}
    contenders = {}
    for name, folder in (("large", large), ("small", small), ("waiting", large)):
        with supplying(waited[name], ahead=name != "waiting"):
            contenders[name] = advancing(*program_of(open_prepared(folder).train, COHORT))
    times = interleave(contenders, repeats, budget)
    return {
        "seconds": {name: time.median for name, time in times.items()},
        "ratio": times["large"].over(times["small"]),
        "ratio_cpu": cpu_over(times["large"], times["small"]),
        "rounds": len(times["large"].taken),
        "wait_s": float(np.median(waited["large"])),
        "make_s": float(np.median(waited["waiting"])),
    }


def program_of(data: Any, cohort: int, model: str = "logistic") -> tuple[Any, Any]:
    """``(program, state)``: FedAvg, one pass in batches of 20, one device."""
    import jax

    import fedjax_sim as fs

    network = fs.models.REGISTRY[model](2)
    algorithm = fs.fedavg(fs.classification(network), lr=0.05)
    program = fs.make_round(
        algorithm,
        fs.samplers.uniform(cohort),
        data,
        fs.local_work(20),
        fs.Engine(devices=1, data="host"),
    )
    return program, program.init(
        fs.Variables(*network.init(jax.random.key(0), np.asarray(data.x[:1])))
    )


def living(
    folder: str, cohort: int = COHORT, rounds: int = 30, model: str = "logistic"
) -> dict[str, Any]:
    """A process that does nothing but rounds on the data of a folder, its memory and its clock.

    Memory is anonymous memory (``RssAnon``), looked at every few milliseconds: what is the process's own. Pages of the data files that
    it has looked at count as resident, too (``peak_resident``, VmHWM), but they are the system's cache and go when somebody needs them.

    Returns:
      Bytes: ``model``, the server's; ``imported`` with JAX started, ``opened``, ``ready`` with program and first state made, ``peak``
      (the most of all), ``peak_resident``; seconds: ``open_s`` of the data, ``make_s`` of program and state, ``first_s`` and
      ``round_s`` (median of the others).
    """
    import jax

    import fedjax_sim as fs
    from benchmarks.growth import reset_peak, resident
    from fedjax_sim.core import tree
    from fedjax_sim.data import open_prepared

    fs.enable_compilation_cache()
    jax.block_until_ready(jax.device_put(0))
    imported, clock = resident("RssAnon"), [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    with watched() as seen:
        data = open_prepared(folder).train
        open_s, opened = lap(), resident("RssAnon")
        program, state = program_of(data, cohort, model)
        make_s, taken = lap(), []
        reset_peak()
        ready = resident("RssAnon")
        lap()
        for _ in range(rounds):
            state, _ = jax.block_until_ready(program.run(state))
            taken.append(lap())
    return {
        "cohort": cohort,
        "model": tree.nbytes(state.algorithm),
        **{
            "imported": imported,
            "opened": opened,
            "ready": ready,
            "peak": max(seen),
            "peak_resident": resident("VmHWM"),
        },
        **{
            "open_s": open_s,
            "make_s": make_s,
            "first_s": taken[0],
            "round_s": float(np.median(taken[1:] or taken)),
        },
    }


@contextmanager
def watched(pause: float = 0.003) -> Iterator[list[int]]:
    """Anonymous memory of this process while this is open, every few milliseconds."""
    from benchmarks.growth import resident

    seen, over = [resident("RssAnon")], threading.Event()

    def look() -> None:
        while not over.wait(pause):
            seen.append(resident("RssAnon"))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


def predicted(folder: str, cohort: int = COHORT, model: str = "logistic") -> dict[str, int]:
    """What `fedjax-sim check` says of a run like that: bytes on the ``device``, of it those of packed ``data``, and on the ``host``."""
    from tempfile import NamedTemporaryFile

    from fedjax_sim.experiments import build
    from fedjax_sim.experiments.config import load_config
    from fedjax_sim.experiments.estimate import estimate

    tables = [
        f'[task]\nname = "prepared"\nsource = "{folder}"\nmodel = "{model}"',
        '[algorithm]\nname = "fedavg"',
    ]
    tables += [
        f'[sampler]\nkind = "uniform"\ncohort = {cohort}',
        "[local_work]\nbatch_size = 20",
        '[engine]\ndevices = 1\ndata = "host"',
    ]
    with NamedTemporaryFile("w", suffix=".toml") as file:
        file.write("\n".join(tables))
        file.flush()
        costs = estimate(build(load_config(file.name)))
    return {"cohort": cohort, "device": costs.device, "data": costs.data, "host": costs.host}


def cold(folder: str, times: int = 4) -> dict[str, float]:
    """Seconds in which a cohort of 1,000 is packed that the system has to read from the disk, bytes that it reads, and bytes of the
    cohort; medians."""
    import jax

    from benchmarks.hosted import advancing, packing, set_up, supplying
    from fedjax_sim.data import open_prepared

    set_up()
    told: list[tuple[float, int]] = []
    read = []
    with packing(told), supplying([], ahead=False):
        run = advancing(*program_of(open_prepared(folder).train, COHORT))
        for _ in range(times):
            for name in ("train.x.npy", "train.y.npy"):
                with open(Path(folder) / name, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            before = _read_bytes()
            jax.block_until_ready(run())
            read.append(_read_bytes() - before)
    seconds, wanted = np.median(told, axis=0).tolist()
    return {"cold_s": seconds, "cold_bytes": float(np.median(read)), "wanted_bytes": wanted}


def _read_bytes() -> int:
    """Bytes that this process has had read from a disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


# -------------------------------------------------------------------------------------------------- a hundred million clients


def numbers(clients: int) -> dict[str, Any]:
    """What grows with the number of clients and needs no example.

    Returns:
      ``sample_s``, seconds in which the uniform sampler draws and deals a cohort of 1,000; and of an empty vault for so many clients:
      ``vault_s``, seconds to open it, ``vault_bytes``, anonymous memory that it takes once 10,000 clients from all over have a row of
      1 kB, and ``rows_s``, the seconds in which 1,000 of them are read.
    """
    from tempfile import TemporaryDirectory

    from benchmarks.growth import resident
    from fedjax_sim.engine.host.rows import open_vault

    ids, row = (
        np.random.default_rng(0).permutation(clients if clients < 10**6 else 10**6)[:10_000]
        * max(1, clients // 10**6),
        1024,
    )
    before, begun = resident("RssAnon"), time.perf_counter()
    with TemporaryDirectory() as folder:
        vault = open_vault(folder, np.zeros(row, np.uint8), clients)
        vault_s = time.perf_counter() - begun
        for first in range(0, len(ids), 1000):
            vault.write(
                ids[first : first + 1000], np.ones((len(ids[first : first + 1000]), row), np.uint8)
            )
        begun = time.perf_counter()
        vault.read(ids[:1000])
        rows_s, held = time.perf_counter() - begun, resident("RssAnon") - before
        vault.close()
    return {
        "clients": clients,
        "vault_s": vault_s,
        "vault_bytes": held,
        "rows_s": rows_s,
        "sample_s": sampling(clients),
    }


def sampling(clients: int, cohort: int = COHORT, times: int = 30) -> float:
    """Seconds in which the host draws a cohort and deals it, median; sizes and steps of all clients lie ready."""
    from functools import partial

    import jax

    from fedjax_sim import samplers
    from fedjax_sim.data import info, local_work
    from fedjax_sim.engine import Engine, make_plan
    from fedjax_sim.engine.round import sample_cohort

    work = local_work(20)
    facts = population_info(work, jax.device_put(np.full(clients, EACH, np.int32)))
    sampled = jax.jit(
        partial(sample_cohort, samplers.uniform(cohort), make_plan(Engine(devices=1), EACH), work)
    )
    taken = []
    for number in range(times + 1):
        begun = time.perf_counter()
        jax.tree.map(np.asarray, sampled(facts, np.uint32(0), np.int32(number), ()))
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken[1:]))
