"""Where a round runs: the user's choices (:class:`Engine`) and the resulting :class:`Plan`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
from jax.sharding import PartitionSpec

from fedjax_sim.core.annotations import ANY_SIZE
from fedjax_sim.core.errors import require, suggest

Kind = Literal["queue", "padded"]
Backend = Literal["auto", "vmap", "pmap", "shard_map"]
Place = Literal["auto", "device", "host"]
Split = Literal["model", "batch"]

AXIS = "clients"
"""The mesh axis over which shards of the cohort are spread."""
MODEL = "model"
"""The mesh axis over which one client's model, or its batch, is split."""
Layout = Callable[[str, tuple[int, ...]], PartitionSpec]
"""``(path, shape) -> spec``: how an array of one client or of the server is split over
``"model"``."""


class Engine(NamedTuple):
    """The engine's configuration.

    Every choice gives the same results, up to the order of float additions.

    Args:
      kind: ``"queue"``: lanes that take clients from a queue. ``"padded"``: the reference, a vmap
        in which every client is padded to the longest one.
      lanes: clients that run side by side on a device.
      backend: ``"vmap"`` (one device), ``"shard_map"`` or ``"pmap"`` (several). ``"auto"`` chooses
        ``"vmap"`` on one device and ``"shard_map"`` on several.
      devices: number of devices; by default all of them.
      shards: number of shards; by default one per device. A fixed number makes results
        bit-identical on every number of devices that divides it.
      memory_limit: bytes that a round may use on each device; by default the device's own limit.
        The number of lanes is halved until the round fits.
      data: where the population's examples are stored. ``"device"``: on the devices. ``"host"``: in
        host memory or files; each cohort's examples are copied to the devices while the round
        before runs. ``"auto"`` chooses the devices if the examples fit there.
      client_memory: where client memory is stored: on the devices, or in files on the host, from
        which each cohort's rows are copied to the devices.
      devices_per_client: devices over which one client is split; XLA partitions its steps.
      split: what the devices of one client divide among themselves. ``"model"``: each has a part of
        the model. ``"batch"``: each has the whole model and a part of every batch; a batch whose
        size they do not divide is replicated.
      layout: how each array is split over the devices of one client, by its path and its shape:
        ``PartitionSpec(None, "model")``, or ``PartitionSpec()`` for an array that is not split.
        Paths begin with ``algorithm``, ``memory``, ``local`` or ``upload`` and end with the model's
        name of the parameter, such as ``head.kernel``; shapes are one client's. By default, arrays
        that are not small are split along their largest dimension. Only for ``split = "model"``.

    Example:
      >>> import fedjax_sim as fs
      >>> engine = fs.Engine(lanes=4, devices=1)
      >>> engine.kind, engine.lanes, engine.backend
      ('queue', 4, 'auto')
    """

    kind: Kind = "queue"
    lanes: int | Literal["auto"] = "auto"
    backend: Backend = "auto"
    devices: int | None = None
    shards: int | None = None
    memory_limit: Annotated[int | None, ANY_SIZE] = None
    data: Place = "auto"
    client_memory: Literal["device", "host"] = "device"
    devices_per_client: int = 1
    split: Split = "model"
    layout: Layout | None = None


class Plan(NamedTuple):
    """An :class:`Engine` made concrete for this machine and this population."""

    kind: Kind
    lanes: int | Literal["auto"]
    backend: Literal["vmap", "pmap", "shard_map"]
    devices: tuple[Any, ...]
    """The ``jax.Device`` objects themselves."""
    shards: int
    ordered: bool
    """True if shard sums are added in a fixed order (the user fixed the number of shards)."""
    limit: int
    """Examples of the largest client."""
    memory_limit: int | None = None
    """Bytes that a round may use on each device."""
    halvings: int = 0
    """How often the number of lanes was halved because a round did not fit."""
    data: Place = "auto"
    """Where the examples are stored."""
    client_memory: Literal["device", "host"] = "device"
    """Where client memory is stored."""
    devices_per_client: int = 1
    """Devices over which one client is split."""
    split: Split = "model"
    """What the devices of one client divide among themselves."""
    layout: Layout | None = None
    """The user's rule for splitting arrays; ``None`` for the default rule."""
    evenness: float = 1.0
    """Mean steps of a client divided by the expected steps of a cohort's longest client, see
    :func:`fedjax_sim.data.batching.evenness`."""

    @property
    def local_devices(self) -> tuple[Any, ...]:
        """The plan's devices that belong to this process."""
        return tuple(
            device for device in self.devices if device.process_index == jax.process_index()
        )

    @property
    def platform(self) -> str:
        """``"cpu"``, ``"gpu"`` or ``"tpu"``."""
        return self.devices[0].platform

    @property
    def replicas(self) -> int:
        """Number of replicas: devices, or groups of devices that share one client's model."""
        return len(self.devices) // self.devices_per_client

    @property
    def shards_per_device(self) -> int:
        """Shards that each replica runs, one after another."""
        return self.shards // self.replicas


def make_plan(engine: Engine, limit: int) -> Plan:
    """Checks an engine against the machine and returns the plan.

    Args:
      engine: the user's configuration.
      limit: examples of the largest client.

    Returns:
      The plan, with devices, shards and the backend chosen. The place of the examples may still be
      ``"auto"``.

    Raises:
      FedError: for an unknown kind or backend, more devices than are available, shards that the
        devices do not divide, the ``vmap`` backend on several devices, or ``devices_per_client``
        that does not fit the devices.

    Example:
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.engine import make_plan
      >>> plan = make_plan(fs.Engine(devices=1, shards=4), limit=10)
      >>> plan.backend, plan.replicas, plan.shards_per_device
      ('vmap', 1, 4)
    """
    _check_choices(engine)
    devices = _devices(engine)
    shards = _shard_count(engine, _replica_count(engine, devices))
    backend = engine.backend
    if backend == "auto":
        backend = "vmap" if len(devices) == 1 else "shard_map"
    return Plan(
        engine.kind,
        engine.lanes,
        backend,
        devices,
        shards,
        engine.shards is not None,
        limit,
        engine.memory_limit,
        data=engine.data,
        client_memory=engine.client_memory,
        devices_per_client=engine.devices_per_client,
        split=engine.split,
        layout=engine.layout,
    )


def _check_choices(engine: Engine) -> None:
    """Checks everything that does not depend on the machine."""
    _require_known("engine.kind", engine.kind, ("queue", "padded"))
    _require_known("engine.backend", engine.backend, ("auto", "vmap", "pmap", "shard_map"))
    _require_known("engine.data", engine.data, ("auto", "device", "host"))
    _require_known("engine.client_memory", engine.client_memory, ("device", "host"))
    _require_known("engine.split", engine.split, ("model", "batch"))
    require(
        engine.layout is None or engine.split == "model",
        "engine.layout splits the model, but engine.split = 'batch' keeps the model whole",
        got="both engine.layout and engine.split = 'batch'",
        fix="leave one of them out",
        setting="engine.split",
    )
    require(
        engine.client_memory == "device" or engine.data != "device",
        "engine.client_memory = 'host' needs the examples on the host too",
        got="engine.data = 'device'",
        fix="leave engine.data out",
        setting="engine.data",
    )
    lanes = engine.lanes
    require(
        lanes == "auto" or (isinstance(lanes, int) and lanes > 0),
        "engine.lanes must be 'auto' or a positive number",
        got=repr(lanes),
        fix="use 'auto'",
        setting="engine.lanes",
    )
    require(
        engine.memory_limit is None or engine.memory_limit > 0,
        "engine.memory_limit must be positive",
        got=engine.memory_limit,
        fix="give a number of bytes, or leave it out",
        setting="engine.memory_limit",
    )


def _devices(engine: Engine) -> tuple[Any, ...]:
    devices = tuple(jax.devices()[: _device_count(engine)])
    processes = {device.process_index for device in devices}
    require(
        len(processes) == jax.process_count(),
        "every process needs at least one of the run's devices",
        got=f"{len(devices)} devices in {len(processes)} of {jax.process_count()} processes",
        fix="raise engine.devices, or leave it out",
        setting="engine.devices",
    )
    return devices


def _device_count(engine: Engine) -> int:
    available = len(jax.devices())
    count = engine.devices
    if count is None:
        return 1 if engine.backend == "vmap" else available
    require(
        isinstance(count, int) and 0 < count <= available,
        "engine.devices must be between 1 and the number of available devices",
        got=f"{count} of {available}",
        fix=f"lower it to {available}, or give JAX more devices "
        "(on CPU: jax.config.update('jax_num_cpu_devices', n) before JAX is first used)",
        setting="engine.devices",
    )
    require(
        engine.backend != "vmap" or count == 1,
        "backend 'vmap' runs on one device",
        got=f"engine.devices = {count}",
        fix="use backend 'shard_map' or devices = 1",
        setting="engine.backend",
    )
    return count


def _replica_count(engine: Engine, devices: tuple[Any, ...]) -> int:
    size = engine.devices_per_client
    require(
        isinstance(size, int) and size > 0 and len(devices) % size == 0,
        "engine.devices_per_client must divide the devices",
        got=f"{size} of {len(devices)}",
        fix="use 1, or a divisor of the number of devices",
        setting="engine.devices_per_client",
    )
    require(
        size == 1 or engine.backend in ("auto", "shard_map"),
        "engine.devices_per_client above 1 needs the backend 'shard_map'",
        got=repr(engine.backend),
        fix="leave engine.backend out",
        setting="engine.backend",
    )
    replicas = [devices[i : i + size] for i in range(0, len(devices), size)]
    require(
        all(len({device.process_index for device in replica}) == 1 for replica in replicas),
        "devices that share a model must belong to one process",
        got=f"engine.devices_per_client = {size}, which mixes devices of two processes",
        fix="choose an engine.devices_per_client that divides every process's devices",
        setting="engine.devices_per_client",
    )
    return len(replicas)


def _shard_count(engine: Engine, replicas: int) -> int:
    shards = replicas if engine.shards is None else engine.shards
    size = engine.devices_per_client
    noun = "devices" if size == 1 else f"groups of {size} devices"
    require(
        shards > 0 and shards % replicas == 0,
        "engine.shards must be a multiple of the devices"
        + " divided by engine.devices_per_client" * (size > 1),
        got=f"{shards} shards on {replicas} {noun}",
        fix=f"use {replicas} or {2 * replicas} shards",
        setting="engine.shards",
    )
    return shards


def _require_known(name: str, value: str, known: tuple[str, ...]) -> None:
    require(
        value in known,
        f"unknown {name}",
        got=repr(value),
        fix=suggest(str(value), known),
        setting=name,
    )
