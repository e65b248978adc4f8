"""A workload as a folder that a peer's environment can read with numpy alone."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np

from benchmarks.workloads import Workload


def write_job(workload: Workload, folder: pathlib.Path) -> None:
    """Writes data, cohort, initial parameters and settings.

    ``x`` and ``y`` are single arrays in all our workloads.

    Args:
      workload: to write.
      folder: created if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "x": workload.data.x,
        "y": workload.data.y,
        "offsets": workload.data.offsets,
        "cohort": workload.cohort,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", np.asarray(array))
    params = flat(workload.init().params)
    np.savez(folder / "init.npz", allow_pickle=False, **params)
    settings = {
        "workload": workload.name,
        "model": workload.model,
        "algorithm": workload.algorithm,
        "classes": len(params["head/bias"]),
        "lr": workload.lr,
        "batch_size": workload.local_work.batch_size,
        "epochs": workload.local_work.epochs,
        "seed": 0,
    }
    (folder / "job.json").write_text(json.dumps(settings, indent=1))


def flat(params: object) -> dict[str, np.ndarray]:
    """A tree of parameters as arrays by name, such as ``"hidden_0/kernel"``."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
