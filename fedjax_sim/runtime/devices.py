"""JAX, set up before it starts: CPU cores as devices where there is no accelerator, and compiled programs kept for next time."""

from __future__ import annotations

import contextlib
import glob
import importlib.metadata
import math
import os
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fedjax_sim.core.errors import require

ALIGNMENT = 64
"""Bytes."""
HARDWARE = {"cuda": ("/dev/nvidia[0-9]*", "/dev/nvhost-gpu", "/dev/dxg"), "rocm": ("/dev/kfd",)}
"""Device files, one of which is there where a plugin of that name has something to run on."""


def use_cores(count: int | None = None) -> None:
    """Makes devices of the CPU's cores. To be called before anything runs on JAX.

    What was said before (``JAX_NUM_CPU_DEVICES``, ``XLA_FLAGS``, JAX's own configuration) is respected, on a machine with an
    accelerator nothing happens, and a JAX that has started stays as it is: look at ``jax.devices()``.

    Args:
      count: how many devices; by default one for each core that this process may use.
    """
    if _decided() or _accelerated():
        return
    try:
        jax.config.update("jax_num_cpu_devices", cores() if count is None else count)
    except RuntimeError:  # already started
        return


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def aligned_copy(leaf: Any) -> Any:
    """A copy of an array that a CPU's JAX devices use where it lies, all of them the one copy. An array of JAX's stays what it is.

    Aligned as XLA wants it, and in memory of numpy's, which asks the system for huge pages: rows gathered from them cost a tenth of
    a small model's step less than from JAX's own memory.
    """
    if isinstance(leaf, jax.Array):
        return leaf
    leaf = np.asarray(leaf)
    copy = aligned_empty(leaf.shape, leaf.dtype)
    copy[...] = leaf
    return copy


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array that a CPU's JAX devices use where it lies."""
    nbytes = math.prod(shape) * dtype.itemsize
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + nbytes].view(dtype).reshape(shape)


def require_memory(what: str, nbytes: float, do: str, setting: str | None = None) -> None:
    """Refuses what the machine's memory cannot hold before it is made: a system without memory ends programs without a word.

    Raises:
      FedError: with both sizes, what to do, and the setting to blame.
    """
    has = (
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if hasattr(os, "sysconf")
        else math.inf
    )
    require(
        nbytes <= has,
        f"{what} must fit in memory",
        got=f"{nbytes / 1e9:,.3g} GB of {has / 1e9:,.3g} GB",
        fix=do,
        setting=setting,
    )


def enable_compilation_cache() -> None:
    """Turns on JAX's persistent compilation cache, so that a second run starts at once.

    In the user's cache folder, at most 2 GB, oldest out first; a damaged entry is compiled anew, and what a process left that was killed
    while it wrote is forgotten. ``FEDJAX_SIM_CACHE=off`` turns it off, any other value names the folder. A cache that JAX was told of
    already is respected.
    """
    asked = os.environ.get("FEDJAX_SIM_CACHE", "")
    if asked.lower() in ("off", "0", "no") or jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    # A damaged entry, or one that cannot be kept, is a program to compile, not something to tell the user about, once for each.
    warnings.filterwarnings(
        "ignore", message="Error (reading|writing) persistent compilation cache entry"
    )
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = asked or str(Path(home) / "fedjax_sim" / "programs")
    _forget_torn(Path(folder))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_max_size", 2 * 2**30)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _forget_torn(folder: Path) -> None:
    """Removes entries whose writer was killed before it noted their time.

    With one of them JAX keeps no more programs, and it never replaces an entry that is cut short.
    """
    if not folder.is_dir():
        return
    import filelock  # as JAX does, when it first compiles

    with (
        contextlib.suppress(OSError),
        filelock.FileLock(folder / ".lockfile", timeout=10),
    ):  # JAX's own: nobody writes meanwhile
        names = set(os.listdir(folder))
        for name in names:
            if name.endswith("-cache") and f"{name.removesuffix('-cache')}-atime" not in names:
                (folder / name).unlink()


def _decided() -> bool:
    flagged = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    return flagged or jax.config.jax_num_cpu_devices > 0  # type: ignore[attr-defined]


def _accelerated() -> bool:
    """Whether JAX will run on something else than the CPU: the one that was asked for, else where a plugin finds its hardware."""
    asked = jax.config.jax_platforms or ""  # type: ignore[attr-defined]
    if asked:
        return asked.split(",")[0] != "cpu"
    return any(
        _served(plugin.name) for plugin in importlib.metadata.entry_points(group="jax_plugins")
    )


def _served(plugin: str) -> bool:
    """Whether a plugin has something to run on, as far as device files tell; one that we do not know is believed."""
    files = next((files for name, files in HARDWARE.items() if name in plugin), None)
    hidden = "cuda" in plugin and os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    return not hidden and (files is None or any(glob.glob(file) for file in files))
