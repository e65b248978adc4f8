"""Stores with checkpoints of the tiny program, and what may happen to their files."""

from pathlib import Path

import jax
import numpy as np
import tiny

from fedjax_sim.persistence.checkpoint import open_store


def same(a, b) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype
        and x.shape == y.shape
        and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in pairs
    )


def filled(directory: Path, rounds=(1, 2), **settings):
    """A closed store's folder with checkpoints of these rounds."""
    store = open_store(directory, **settings)
    for round_ in rounds:
        store.save(tiny.after(round_), {"config": {"rounds": 9}})
    store.close()
    return open_store(directory, **settings)


def blank():
    return jax.eval_shape(lambda: tiny.first(tiny.variables()))


def data_files(step: Path) -> list[Path]:
    return sorted(
        (path for path in step.rglob("*") if path.is_file() and path.parent.name == "d"),
        key=lambda path: path.stat().st_size,
    )


def flip(path: Path, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 4
    path.write_bytes(bytes(content))


def flip_all(step: Path) -> None:
    for path in data_files(step):
        flip(path)
