"""Configuration of JAX before it starts: CPU cores as devices if there is no accelerator, and the
compilation cache."""

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
"""Bytes; XLA uses a host array in place if it is aligned so."""
HARDWARE = {"cuda": ("/dev/nvidia[0-9]*", "/dev/nvhost-gpu", "/dev/dxg"), "rocm": ("/dev/kfd",)}
"""Device files by the name of a JAX plugin, at least one of which exists if the plugin has a
device."""


def use_cores(count: int | None = None) -> None:
    """Makes CPU cores devices of JAX. To be called before anything runs on JAX.

    Does nothing if the number is set already (by ``JAX_NUM_CPU_DEVICES``, ``XLA_FLAGS`` or JAX's
    configuration), on a machine with an accelerator, or once JAX has started: ``jax.devices()``
    shows the result.

    Args:
      count: number of devices; by default the number of cores that this process may use.

    >>> import jax
    >>> import fedjax_sim as fs
    >>> fs.use_cores()
    >>> len(jax.devices()) >= 1
    True
    """
    if _count_is_set() or _accelerated():
        return
    try:
        jax.config.update("jax_num_cpu_devices", cores() if count is None else count)
    except RuntimeError:  # already started
        return


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def aligned_copy(leaf: Any) -> Any:
    """Copies an array so that all CPU devices of JAX can use the one copy in place.

    The copy is aligned as XLA requires, in memory that numpy allocates in huge pages: gathering
    rows from it instead of JAX's own memory makes the step of a small model a tenth faster.

    Args:
      leaf: an array, or anything that ``np.asarray`` accepts.

    Returns:
      A numpy array; an array of JAX is returned as it is.
    """
    if isinstance(leaf, jax.Array):
        return leaf
    leaf = np.asarray(leaf)
    copy = aligned_empty(leaf.shape, leaf.dtype)
    copy[...] = leaf
    return copy


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an uninitialised array that CPU devices of JAX can use in place.

    Args:
      shape: of the array.
      dtype: of the array.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + nbytes].view(dtype).reshape(shape)


def require_memory(what: str, nbytes: float, do: str, setting: str | None = None) -> None:
    """Refuses an allocation that exceeds the machine's RAM.

    The operating system would kill the process without a message.

    Args:
      what: what is to be allocated, the subject of the message.
      nbytes: its size.
      do: what the user should do instead.
      setting: the setting that caused it.

    Raises:
      FedError: with both sizes, ``do`` and the setting.
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
    """Turns on JAX's persistent compilation cache, so that a second run starts without compiling.

    The cache is in the user's cache folder and holds at most 2 GB; the entries used longest ago are
    removed first. Damaged entries are compiled again. The environment variable ``FEDJAX_SIM_CACHE``
    names another folder, or turns the cache off with ``off``. If JAX has a cache folder already,
    nothing changes.

    >>> import os
    >>> from unittest import mock
    >>> import fedjax_sim as fs
    >>> with mock.patch.dict(os.environ, FEDJAX_SIM_CACHE="off"):
    ...     fs.enable_compilation_cache()
    """
    requested = os.environ.get("FEDJAX_SIM_CACHE", "")
    configured = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if requested.lower() in ("off", "0", "no") or configured:
        return
    # A damaged entry, or one that cannot be stored, is compiled: no warning for each of them.
    warnings.filterwarnings(
        "ignore", message="Error (reading|writing) persistent compilation cache entry"
    )
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = requested or str(Path(home) / "fedjax_sim" / "programs")
    _remove_incomplete(Path(folder))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_max_size", 2 * 2**30)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _remove_incomplete(folder: Path) -> None:
    """Removes entries whose writer was killed before it wrote their time of access.

    While there is one of them JAX stores no more programs, and it never replaces an incomplete
    entry.
    """
    if not folder.is_dir():
        return
    import filelock  # as JAX does, when it first compiles

    # JAX's own lock: no other process writes to the folder while it is held.
    with contextlib.suppress(OSError), filelock.FileLock(folder / ".lockfile", timeout=10):
        names = set(os.listdir(folder))
        for name in names:
            if name.endswith("-cache") and f"{name.removesuffix('-cache')}-atime" not in names:
                (folder / name).unlink()


def _count_is_set() -> bool:
    flagged = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    return flagged or jax.config.jax_num_cpu_devices > 0  # type: ignore[attr-defined]


def _accelerated() -> bool:
    """Returns True if JAX will run on another platform than the CPU."""
    requested = jax.config.jax_platforms or ""  # type: ignore[attr-defined]
    if requested:
        return requested.split(",")[0] != "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return any(_has_device(plugin.name) for plugin in plugins)


def _has_device(plugin: str) -> bool:
    """Returns True if a device file of the plugin exists, or the plugin is unknown."""
    files = next((files for name, files in HARDWARE.items() if name in plugin), None)
    hidden = "cuda" in plugin and os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    return not hidden and (files is None or any(glob.glob(file) for file in files))
