"""Manifests: names, shapes, dtypes and checksums of a state's leaves, and the hash of the whole
state.

Leaves are in the order of their names. Nothing here touches a disk;
:mod:`fedjax_sim.persistence.checkpoint` does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
import zlib
from collections import Counter
from functools import cache
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim.core import tree
from fedjax_sim.core.errors import fail, require, shorten
from fedjax_sim.core.files import too_deep
from fedjax_sim.core.types import PyTree
from fedjax_sim.runtime.devices import cores

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "fedjax-sim")

OPTIONS = ("enable_x64", "default_matmul_precision", "threefry_partitionable", "default_prng_impl")
"""Options of JAX that change numbers."""

Manifest = dict[str, list[Any]]
"""``{name: [shape, dtype, crc32]}``, ready for JSON."""


def state_hash(state: PyTree) -> str:
    """Returns the sha256 over the name, dtype, shape and bytes of a state's leaves.

    Two runs with equal hashes ended in the same bits, wherever their arrays are.

    Args:
      state: a logical state, or any tree of arrays.

    Returns:
      64 hexadecimal digits.

    >>> import numpy as np
    >>> import fedjax_sim as fs
    >>> fs.state_hash({"w": np.zeros(2, np.float32)})[:16]
    '6a0e56057192f122'
    >>> fs.state_hash({"w": np.zeros(2)}) == fs.state_hash({"w": np.zeros(2, np.float32)})
    False
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(leaves(state).items()):
        digest.update(f"{name}\n{dtype(leaf)}\n{list(jnp.shape(leaf))}\n".encode())
        digest.update(data(to_numpy(leaf)))
    return digest.hexdigest()


def manifest(state: PyTree) -> Manifest:
    """Returns the shape, dtype and crc32 of every leaf, by name.

    Args:
      state: any tree of arrays, typed keys included.
    """
    return {
        name: [list(jnp.shape(leaf)), dtype(leaf), crc(to_numpy(leaf))]
        for name, leaf in leaves(state).items()
    }


def versions() -> dict[str, str]:
    """Returns everything that a run's bits depend on besides its configuration.

    Returns:
      The versions of libraries and of Python, the platform, the processor, and options of JAX.
    """
    machine = f"{platform.system()} {platform.machine()} {jax.default_backend()}"
    libraries = {
        **{name: _version(name) for name in LIBRARIES},
        "python": platform.python_version(),
    }
    options = ", ".join(f"{name} {getattr(jax.config, f'jax_{name}')}" for name in OPTIONS)
    return {**libraries, "platform": machine, "processor": _processor(), "options": options}


def order(plan: Any) -> dict[str, str]:
    """Returns everything in a plan that decides the order of a round's sums.

    The last bits of a result depend on that order.

    Args:
      plan: the program's, of type :class:`fedjax_sim.engine.Plan`.
    """
    fixed = "in a fixed order on any devices" if plan.ordered else "one a device"
    return {"engine": plan.kind, "lanes": str(plan.lanes), "shards": f"{plan.shards} {fixed}"}


def changed(then: Any, now: dict[str, str]) -> tuple[str, ...]:
    """Returns a note if :func:`versions` or :func:`order` differ from a checkpoint's.

    Args:
      then: the checkpoint's; read from a file, so of any type.
      now: this run's.
    """
    saved = then.items() if isinstance(then, dict) else ()
    changes = [
        shorten(f"{name} {old} -> {now.get(name)}", 200)
        for name, old in saved
        if now.get(name) != old
    ]
    if not changes:
        return ()
    listed = "; ".join(changes)
    return (f"saved under other conditions ({listed}): results may differ in the last bits",)


def compare(step: int, have: Manifest, like: PyTree) -> None:
    """Checks that a checkpoint's leaves have the names, shapes and dtypes of a state.

    Args:
      step: the checkpoint's round, for the error message.
      have: the checkpoint's manifest.
      like: the state, of arrays or of ``ShapeDtypeStruct``.

    Raises:
      FedError: naming one leaf that differs, with both shapes and dtypes.
    """
    want = {name: f"{dtype(leaf)}{list(jnp.shape(leaf))}" for name, leaf in leaves(like).items()}
    found = {name: f"{kind}{shape}" for name, (shape, kind, _) in have.items()}
    names = (*want, *(found.keys() - want.keys()))
    different = [name for name in names if want.get(name) != found.get(name)]
    if not different:
        return
    # A leaf in both, with another shape or dtype, is the most informative one.
    different.sort(key=lambda name: not (name in want and name in found))
    name = different[0]
    others = f" (and at {len(different) - 1} more leaves)" if len(different) > 1 else ""
    fail(
        f"the checkpoint of round {step} does not fit this configuration at {name}{others}",
        got=f"{found.get(name, 'nothing')} in the checkpoint, "
        f"{want.get(name, 'nothing')} in this configuration",
        fix="resume with the configuration that the run was started with, "
        "or start a new run in another folder",
    )


def with_checksum(described: Manifest, metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns a checkpoint's record: manifest, metadata, and a checksum of both.

    Args:
      described: the manifest of the state.
      metadata: anything that JSON can hold.

    Raises:
      FedError: if the metadata is not JSON.
    """
    try:
        metadata = json.loads(json.dumps(metadata))
    except (TypeError, ValueError) as error:
        fail(
            "a checkpoint's metadata must be JSON",
            got=error,
            fix="pass dicts, lists, strings and numbers",
        )
    return {"manifest": described, "metadata": metadata, "seal": _seal(described, metadata)}


def checksum_ok(record: dict[str, Any]) -> bool:
    """Returns True if a record is as :func:`with_checksum` made it.

    This detects damage, not forgery.
    """
    valid = all(len(facts) == 3 for facts in record["manifest"].values()) and not too_deep(record)
    return valid and record["seal"] == _seal(record["manifest"], record["metadata"])


def leaves(state: PyTree) -> dict[str, Any]:
    """Returns the leaves by name, in the tree's order.

    Raises:
      FedError: if two leaves have the same name.
    """
    named = [
        (tree.name(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
    ]
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    require(
        not twice,
        "two leaves of the state have the same path",
        got=twice[:1],
        fix="rename one of them",
    )
    return dict(named)


def is_key(leaf: Any) -> bool:
    """Returns True if a leaf holds typed keys."""
    return jnp.issubdtype(getattr(leaf, "dtype", np.dtype("O")), jax.dtypes.prng_key)


def dtype(leaf: Any) -> str:
    """Returns the name of a leaf's dtype, also of a Python number's."""
    return str(leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype)


def to_numpy(leaf: Any) -> np.ndarray:
    """Returns the leaf on the host, possibly a view of it; typed keys become unsigned integers."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def storage(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Returns the shape and dtype of :func:`to_numpy`, also of a ``ShapeDtypeStruct``."""
    array = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
    return jnp.shape(array), array.dtype if hasattr(array, "dtype") else np.asarray(array).dtype


def from_numpy(leaf: Any, array: Any) -> Any:
    """Inverts :func:`to_numpy`.

    Args:
      leaf: an array or ``ShapeDtypeStruct`` with the wanted dtype.
      array: what :func:`to_numpy` returned.

    Returns:
      The array itself, or the typed keys whose data it is.
    """
    if not is_key(leaf):
        return array
    kinds = {
        str(jax.random.key(0, impl=kind).dtype): kind
        for kind in ("threefry2x32", "rbg", "unsafe_rbg")
    }
    return jax.random.wrap_key_data(array, impl=kinds[dtype(leaf)])


def crc(array: np.ndarray) -> int:
    """Returns the crc32 of an array's bytes."""
    return zlib.crc32(data(array))


def data(array: np.ndarray) -> memoryview:
    """Returns an array's bytes in row-major order."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return memoryview(flat.view(np.uint8))  # type: ignore[arg-type]


def _seal(described: Manifest, metadata: Any) -> int:
    return zlib.crc32(json.dumps([described, metadata], sort_keys=True).encode())


@cache
def _processor() -> str:
    """Returns the kind of device, and for a CPU the number of cores that this process may use."""
    kind = jax.devices()[0].device_kind
    if jax.default_backend() != "cpu":
        return kind
    with contextlib.suppress(OSError):
        found = re.search(
            r"^model name\s*:\s*(.+)$",
            Path("/proc/cpuinfo").read_text(errors="replace"),
            re.MULTILINE,
        )
        kind = found[1] if found else platform.processor() or kind
    return f"{kind}, cores {cores()}"


def _version(package: str) -> str:
    try:
        return packages.version(package)
    except packages.PackageNotFoundError:
        return "not installed"
