"""Where a round runs: what the user asks for (:class:`Engine`), and what was made of it (:class:`Plan`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
from jax.sharding import PartitionSpec

from fedjax_sim.core.errors import require, suggest

Kind = Literal["queue", "padded"]
Backend = Literal["auto", "vmap", "pmap", "shard_map"]
Place = Literal["auto", "device", "host"]
Split = Literal["model", "batch"]

AXIS = "clients"
"""The mesh axis over which shards of the cohort are spread."""
MODEL = "model"
"""The mesh axis over which one client's model, or its batch, is spread, where it is."""
Layout = Callable[[str, tuple[int, ...]], PartitionSpec]
"""``(path, shape) -> spec``: how an array lies on the axis ``"model"``, one client's or the server's own."""


class Engine(NamedTuple):
    """The engine's configuration. Every choice gives the same results, up to the order of float additions."""

    kind: Kind = "queue"
    """``"queue"``: lanes that pull clients from a queue. ``"padded"``: every client padded to the longest, the reference."""
    lanes: int | Literal["auto"] = "auto"
    """Clients that run side by side on a device."""
    backend: Backend = "auto"
    """``"vmap"`` on one device, ``"shard_map"`` on several; ``"pmap"`` where asked."""
    devices: int | None = None
    """How many devices; all by default."""
    shards: int | None = None
    """A fixed number of shards makes results bit-identical on any number of devices that divides it. By default one per device."""
    memory_limit: int | None = None
    """Bytes that a round may take on each device; by default what the device has. Lanes are halved until it fits."""
    data: Place = "auto"
    """Where the population's examples are: on the devices, or on the host, from which a cohort's are brought round by round while the
    round before runs. By default on the devices where they fit."""
    client_memory: Literal["device", "host"] = "device"
    """Where what clients remember between rounds is kept: on the devices, or in files on the host, from which a cohort's is lent."""
    devices_per_client: int = 1
    """Devices that one client is spread over; XLA partitions its steps."""
    split: Split = "model"
    """What these devices share: ``"model"``, of which each has a part, or ``"batch"``, of whose examples each takes a part, with all of
    the model; a batch whose size they do not divide is everybody's."""
    layout: Layout | None = None
    """How each array is split over these devices, by its path and its shape: ``PartitionSpec(None, "model")``, or ``PartitionSpec()``.
    Paths begin with ``algorithm``, ``memory``, ``local`` or ``upload`` and end as the model calls the parameter, such as
    ``head.kernel``; shapes are one client's. By default what is not small is split along its largest dimension. Goes with ``split =
    "model"``."""


class Plan(NamedTuple):
    """An :class:`Engine` made concrete."""

    kind: Kind
    lanes: int | Literal["auto"]
    backend: Literal["vmap", "pmap", "shard_map"]
    devices: tuple[Any, ...]
    """The ``jax.Device`` objects themselves."""
    shards: int
    ordered: bool
    """Whether shard sums are added in a fixed order (a fixed number of shards was asked for)."""
    limit: int
    """Examples of the largest client."""
    memory_limit: int | None = None
    """Bytes that a round may take on each device."""
    halvings: int = 0
    """How often the lanes were halved because a round did not fit."""
    data: Place = "auto"
    """Where the examples are to be."""
    client_memory: Literal["device", "host"] = "device"
    """Where clients' memory is kept."""
    devices_per_client: int = 1
    """Devices that one client is spread over."""
    split: Split = "model"
    """What they share."""
    layout: Layout | None = None
    """How, if not by default."""
    evenness: float = 1.0
    """Steps of an average client over those of the longest of a cohort, see :func:`fedjax_sim.data.batching.evenness`."""

    @property
    def local_devices(self) -> tuple[Any, ...]:
        """Those of this process."""
        return tuple(
            device for device in self.devices if device.process_index == jax.process_index()
        )

    @property
    def platform(self) -> str:
        """``"cpu"``, ``"gpu"`` or ``"tpu"``."""
        return self.devices[0].platform

    @property
    def replicas(self) -> int:
        """How many places there are for shards: the devices, or the groups of them that share a model."""
        return len(self.devices) // self.devices_per_client

    @property
    def shards_per_device(self) -> int:
        """Shards that each device runs, one after another."""
        return self.shards // self.replicas


def make_plan(engine: Engine, limit: int) -> Plan:
    """Checks an engine against the machine.

    Raises:
      FedError: for an unknown kind or backend, more devices than there are, shards that the devices do not divide, the ``vmap``
        backend on several devices, or a model over devices that cannot share one.
    """
    _sensible(engine)
    devices = _devices(engine)
    groups = _groups(engine, devices)
    shards = groups if engine.shards is None else engine.shards
    require(
        shards > 0 and shards % groups == 0,
        "engine.shards must be a multiple of the devices"
        + " over engine.devices_per_client" * (engine.devices_per_client > 1),
        got=f"{shards} shards on {groups} {'devices' if engine.devices_per_client == 1 else f'groups of {engine.devices_per_client} devices'}",
        fix=f"use {groups} or {2 * groups} shards",
    )
    backend = (
        engine.backend if engine.backend != "auto" else "vmap" if len(devices) == 1 else "shard_map"
    )
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


def _sensible(engine: Engine) -> None:
    """What can be said without the machine."""
    _known("engine.kind", engine.kind, ("queue", "padded"))
    _known("engine.backend", engine.backend, ("auto", "vmap", "pmap", "shard_map"))
    _known("engine.data", engine.data, ("auto", "device", "host"))
    _known("engine.client_memory", engine.client_memory, ("device", "host"))
    _known("engine.split", engine.split, ("model", "batch"))
    require(
        engine.layout is None or engine.split == "model",
        "engine.layout says how a model is split, which devices that share a batch have whole",
        got="both a layout and engine.split = 'batch'",
        fix="leave one of them out",
        setting="engine.split",
    )
    require(
        engine.client_memory == "device" or engine.data != "device",
        "a host that keeps clients' memory keeps their examples too",
        got="engine.data = 'device' with engine.client_memory = 'host'",
        fix="leave engine.data out",
    )
    lanes = engine.lanes
    require(
        lanes == "auto" or (isinstance(lanes, int) and lanes > 0),
        "engine.lanes must be 'auto' or a positive number",
        got=repr(lanes),
        fix="use 'auto'",
    )
    require(
        engine.memory_limit is None or engine.memory_limit > 0,
        "engine.memory_limit must be positive",
        got=engine.memory_limit,
        fix="give bytes, or leave it out",
    )


def _devices(engine: Engine) -> tuple[Any, ...]:
    devices = tuple(jax.devices()[: _device_count(engine)])
    served = {device.process_index for device in devices}
    require(
        len(served) == jax.process_count(),
        "every process needs a device of its own in the run",
        got=f"{len(devices)} devices in {len(served)} of {jax.process_count()} processes",
        fix="raise engine.devices, or leave it out",
    )
    return devices


def _groups(engine: Engine, devices: tuple[Any, ...]) -> int:
    """How many groups the devices make, each of which shares a model."""
    model = engine.devices_per_client
    fits = isinstance(model, int) and model > 0 and len(devices) % model == 0
    require(
        fits,
        "engine.devices_per_client must divide the devices",
        got=f"{model} of {len(devices)}",
        fix="use 1, or as many devices as share a model",
    )
    require(
        model == 1 or engine.backend in ("auto", "shard_map"),
        "engine.devices_per_client above 1 takes the backend 'shard_map'",
        got=repr(engine.backend),
        fix="leave engine.backend out",
    )
    groups = [devices[i : i + model] for i in range(0, len(devices), model)]
    require(
        all(len({device.process_index for device in group}) == 1 for group in groups),
        "devices that share a model must be of one process",
        got=f"engine.devices_per_client = {model} over the edge of a process",
        fix="choose an engine.devices_per_client that divides every process's devices",
    )
    return len(groups)


def _device_count(engine: Engine) -> int:
    available = len(jax.devices())
    wanted = engine.devices
    if wanted is None:
        return 1 if engine.backend == "vmap" else available
    require(
        isinstance(wanted, int) and 0 < wanted <= available,
        "engine.devices must not exceed the devices there are",
        got=f"{wanted} of {available}",
        fix=f"lower it to {available}, or give JAX more (on CPU: jax.config.update('jax_num_cpu_devices', n) before its first use)",
    )
    require(
        engine.backend != "vmap" or wanted == 1,
        "backend 'vmap' runs on one device",
        got=f"engine.devices = {wanted}",
        fix="use backend 'shard_map' or devices = 1",
    )
    return wanted


def _known(name: str, value: str, known: tuple[str, ...]) -> None:
    require(value in known, f"unknown {name}", got=repr(value), fix=suggest(str(value), known))
