"""What a state is made of, in words and numbers: names, shapes, dtypes and checksums of its leaves, and the hash of the whole.

The order of things is that of the leaves' names. Nothing here touches a disk; :mod:`fedjax_sim.persistence.checkpoint` does.
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
"""Of JAX; they change numbers."""

Manifest = dict[str, list[Any]]
"""``{name: [shape, dtype, crc32]}``, ready for JSON."""


def state_hash(state: PyTree) -> str:
    """sha256 over every leaf of a logical state in the order of their names: name, dtype, shape, bytes. Equal hash, equal run."""
    digest = hashlib.sha256()
    for name, leaf in sorted(leaves(state).items()):
        digest.update(f"{name}\n{dtype(leaf)}\n{list(jnp.shape(leaf))}\n".encode())
        digest.update(data(to_numpy(leaf)))
    return digest.hexdigest()


def manifest(state: PyTree) -> Manifest:
    """Shape, dtype and crc32 of every leaf."""
    return {
        name: [list(jnp.shape(leaf)), dtype(leaf), crc(to_numpy(leaf))]
        for name, leaf in leaves(state).items()
    }


def versions() -> dict[str, str]:
    """Versions, machine and options of JAX: all that a run's bits depend on besides its configuration."""
    machine = f"{platform.system()} {platform.machine()} {jax.default_backend()}"
    libraries = {
        **{name: _version(name) for name in LIBRARIES},
        "python": platform.python_version(),
    }
    options = ", ".join(f"{name} {getattr(jax.config, f'jax_{name}')}" for name in OPTIONS)
    return {**libraries, "platform": machine, "processor": _processor(), "options": options}


def order(plan: Any) -> dict[str, str]:
    """What decides, where versions and machine are the same, in which order a round of this plan adds."""
    fixed = "in a fixed order on any devices" if plan.ordered else "one a device"
    return {"engine": plan.kind, "lanes": str(plan.lanes), "shards": f"{plan.shards} {fixed}"}


def changed(then: Any, now: dict[str, str]) -> tuple[str, ...]:
    """One note where what :func:`versions` or :func:`order` said differs from what they say now, for then the bits may too.

    ``then`` is from a file, and may be anything.
    """
    said = then.items() if isinstance(then, dict) else ()
    moved = [
        shorten(f"{name} {old} -> {now.get(name)}", 200) for name, old in said if now.get(name) != old
    ]
    return (
        (f"saved in other circumstances ({'; '.join(moved)}): results may differ in the last bits",)
        if moved
        else ()
    )


def compare(step: int, have: Manifest, like: PyTree) -> None:
    """Refuses a checkpoint whose leaves are not those of ``like`` (arrays or ``ShapeDtypeStruct``).

    Raises:
      FedError: naming one leaf that differs, both shapes and dtypes, and what to do.
    """
    want = {name: f"{dtype(leaf)}{list(jnp.shape(leaf))}" for name, leaf in leaves(like).items()}
    found = {name: f"{kind}{shape}" for name, (shape, kind, _) in have.items()}
    odd = [
        name for name in (*want, *(found.keys() - want.keys())) if want.get(name) != found.get(name)
    ]
    if not odd:
        return
    odd.sort(key=lambda name: not (name in want and name in found))  # a leaf in both says most
    others = f" (and at {len(odd) - 1} more leaves)" if len(odd) > 1 else ""
    fail(
        f"the checkpoint of round {step} does not fit this configuration at {odd[0]}{others}",
        got=f"{found.get(odd[0], 'nothing')} in the checkpoint, {want.get(odd[0], 'nothing')} in this configuration",
        fix="resume with the configuration that the run was started with, or start a new run in another folder",
    )


def with_checksum(described: Manifest, metadata: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's record. Its seal tells a record that was damaged from one that does not fit."""
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
    """Whether a record is as :func:`with_checksum` made it. Whoever made it up may have known how to seal it."""
    formed = all(len(facts) == 3 for facts in record["manifest"].values()) and not too_deep(record)
    return formed and record["seal"] == _seal(record["manifest"], record["metadata"])


def leaves(state: PyTree) -> dict[str, Any]:
    """Leaves by name, in the tree's order."""
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
    """Whether a leaf holds typed keys."""
    return jnp.issubdtype(getattr(leaf, "dtype", np.dtype("O")), jax.dtypes.prng_key)


def dtype(leaf: Any) -> str:
    """A leaf's dtype in words, also of a plain number."""
    return str(leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype)


def to_numpy(leaf: Any) -> np.ndarray:
    """The leaf on the host, possibly a view of it; typed keys as their words."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def storage(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of :func:`raw`, without the data."""
    words = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
    return jnp.shape(words), words.dtype if hasattr(words, "dtype") else np.asarray(words).dtype


def from_numpy(leaf: Any, array: Any) -> Any:
    """The way back from :func:`raw`: the array itself, or the typed keys that its words are."""
    if not is_key(leaf):
        return array
    kinds = {
        str(jax.random.key(0, impl=kind).dtype): kind
        for kind in ("threefry2x32", "rbg", "unsafe_rbg")
    }
    return jax.random.wrap_key_data(array, impl=kinds[dtype(leaf)])


def crc(array: np.ndarray) -> int:
    """crc32 of an array's bytes."""
    return zlib.crc32(data(array))


def data(array: np.ndarray) -> memoryview:
    """An array's bytes in row-major order."""
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def _seal(described: Manifest, metadata: Any) -> int:
    return zlib.crc32(json.dumps([described, metadata], sort_keys=True).encode())


@cache
def _processor() -> str:
    """The kind of device, and of a CPU how many cores this process may use."""
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
