"""Three thin adapters over one SPMD function ``(state, inputs) -> (state, outcome)``.

The function is written against one axis name. ``vmap`` runs it on one device, ``pmap`` and
``shard_map`` on several. Client memory is split over the devices by rows, and so are inputs in
blocks; everything else is replicated. Each adapter also knows how a *logical* state (memory ``[N,
...]`` on the host) is placed for it. The devices may belong to several processes, each of which
runs all of this on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fedjax_sim.core.types import PyTree, RoundState, Variables
from fedjax_sim.engine.devices.sharding import local_mesh, mesh_of, shardings, state_shardings
from fedjax_sim.engine.plan import AXIS, Plan
from fedjax_sim.runtime.devices import aligned_copy

Spmd = Callable[[RoundState, PyTree], PyTree]
"""``(state, inputs) -> results``, on one device's blocks."""

WHOLE = False
"""Layout of a part of the inputs that is the same on each device."""
BLOCKS = True
"""Layout of a part of the inputs of which each device has a block of rows."""


class Compiled(NamedTuple):
    """An SPMD function as a program, compiled at its first call or explicitly after ``lower``."""

    run: Callable[[RoundState, PyTree], PyTree]
    lower: Callable[[RoundState, PyTree], jax.stages.Lowered]
    arguments: Callable[[RoundState, PyTree], tuple[Any, ...]]
    """``(state, inputs) -> arguments`` of the lowered and compiled program."""


class Backend(NamedTuple):
    """Runs SPMD functions on the plan's devices, and moves values there and back."""

    advance: Callable[..., Compiled]
    """``(spmd, layout=WHOLE)``: compiles ``(state, inputs) -> (state, outcome)``. It donates the
    state. ``layout`` has ``WHOLE`` or ``BLOCKS`` for each part of the inputs."""
    inspect: Callable[..., Compiled]
    """``(spmd, layout=WHOLE)``: compiles a function that does not change the state; its results are
    the same on every device."""
    first: Callable[..., RoundState]
    """``(make, sizes, variables, seed) -> state``: runs ``make`` on the devices of one replica; the
    state's memory is one row."""
    place: Callable[[RoundState], RoundState]
    """Copies a logical state to the devices."""
    share: Callable[[PyTree], PyTree]
    """Replicates values that are only read, such as data. Devices of a CPU share one copy."""
    deal: Callable[..., PyTree]
    """``(blocks, memory=False)``: places blocks of equal shapes, one for each replica of this
    process, as arrays whose rows are split over the devices. ``memory``: the blocks are rows of
    client memory."""
    logical: Callable[[RoundState, int], RoundState]
    """``(state, N)``: the logical state, numpy leaves, memory ``[N, ...]``."""


def make_backend(plan: Plan) -> Backend:
    """Returns the adapter that the plan names.

    Args:
      plan: backend, devices, and how clients are split over them.
    """
    mesh = mesh_of(plan)
    per_device = plan.backend == "pmap"
    adapter = ADAPTERS[plan.backend]

    def share(values: PyTree) -> PyTree:
        if plan.platform == "cpu":
            values = jax.tree.map(aligned_copy, values)
        return put(values, NamedSharding(mesh, P()))

    def place(state: RoundState) -> RoundState:
        # Copied first: the round donates its state, and the caller keeps the argument.
        copied = jax.tree.map(lambda leaf: np.array(leaf, copy=True), replace(state, memory=()))
        blocks = jax.tree.map(
            lambda leaf: _blocks(np.asarray(leaf), plan.replicas, per_device), state.memory
        )
        logical = replace(copied, memory=blocks)
        return jax.tree.map(put, logical, state_shardings(plan, mesh, logical))

    def deal(blocks: Sequence[PyTree], memory: bool = False) -> PyTree:
        if memory:
            targets = shardings(plan, mesh, "memory", blocks[0], True)
        else:
            targets = jax.tree.map(lambda leaf: NamedSharding(mesh, P(AXIS)), blocks[0])
        return jax.tree.map(partial(_join_blocks, plan), targets, *blocks)

    def logical(state: RoundState, population: int) -> RoundState:
        def table(leaf: np.ndarray) -> np.ndarray:
            return (leaf.reshape(-1, *leaf.shape[2:]) if per_device else leaf)[:population]

        rest = jax.tree.map(on_host, replace(state, memory=()))
        return replace(rest, memory=jax.tree.map(table, gather_to_host(state.memory)))

    def program(advances: bool) -> Callable[..., Compiled]:
        return lambda spmd, layout=WHOLE: adapter(spmd, plan, layout, advances)

    return Backend(program(True), program(False), partial(first, plan), place, share, deal, logical)


def first(
    plan: Plan, make: Callable[..., RoundState], sizes: Any, variables: Variables, seed: Any
) -> RoundState:
    """Runs ``make(sizes, variables, seed)``, compiled, on the devices of one replica.

    If clients are split over devices, no device holds a whole model.

    Args:
      plan: the devices.
      make: ``(sizes, variables, seed) -> state``, with one row of memory.
      sizes: int32[N], the clients' numbers of examples.
      variables: the initial model.
      seed: uint32 scalar.
    """
    if plan.devices_per_client == 1:
        return jax.jit(make)(sizes, variables, seed)
    mesh = local_mesh(plan)
    variables = jax.tree.map(put, variables, shardings(plan, mesh, "algorithm", variables))
    like = jax.eval_shape(make, sizes, variables, seed)
    targets = state_shardings(plan, mesh, like, rows=False)
    return jax.jit(make, out_shardings=targets)(sizes, variables, seed)


def nearest(plan: Plan, values: PyTree) -> PyTree:
    """Returns values of the algorithm's state, such as a model, on one replica of this process.

    Computing with them there needs no program on the other devices.

    Args:
      plan: the devices.
      values: arrays on all of the plan's devices.
    """
    if plan.devices_per_client == 1:
        return jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, values)
    return jax.tree.map(
        _to_sharding, values, shardings(plan, local_mesh(plan), "algorithm", values)
    )


def _to_sharding(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Moves an array to devices of this process, without a copy if they hold its parts already."""
    held = {part.device: part for part in leaf.addressable_shards}
    parts = sharding.devices_indices_map(leaf.shape)
    if all(device in held and held[device].index == part for device, part in parts.items()):
        return jax.make_array_from_single_device_arrays(
            leaf.shape, sharding, [held[device].data for device in parts]
        )
    return jax.device_put(on_host(leaf), sharding)


def put(values: PyTree, sharding: NamedSharding) -> PyTree:
    """Places values that every process has on the devices of all processes."""
    if sharding.is_fully_addressable:
        return jax.device_put(values, sharding)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(
            np.shape(leaf), sharding, lambda part: np.asarray(leaf)[part]
        ),
        values,
    )


def on_host(leaf: jax.Array) -> np.ndarray:
    """Copies an array to numpy; this process must hold all its parts."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    whole = np.empty(leaf.shape, leaf.dtype)
    for part in leaf.addressable_shards:
        whole[part.index] = part.data
    return whole


def gather_to_host(values: PyTree) -> PyTree:
    """Copies values on the devices of all processes to numpy, in each process."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(values)):
        return jax.tree.map(np.asarray, values)
    return multihost_utils.process_allgather(values, tiled=True)


def _join_blocks(plan: Plan, sharding: NamedSharding, *blocks: np.ndarray) -> jax.Array:
    """Places one block of rows on each replica of this process, as one array."""
    pieces = [block[None] if plan.backend == "pmap" else block for block in blocks]
    shape = (plan.replicas * len(pieces[0]), *pieces[0].shape[1:])
    parts = sharding.addressable_devices_indices_map(shape)

    def placed(number: int, device: Any) -> jax.Array:
        # Devices of one replica have the same clients, and each its part of the other dimensions.
        piece = pieces[number // plan.devices_per_client]
        columns = (parts[device] or ())[1:]
        return jax.device_put(piece[(slice(None), *columns)], device)

    arrays = [placed(number, device) for number, device in enumerate(plan.local_devices)]
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def _blocks(leaf: np.ndarray, devices: int, per_device: bool) -> np.ndarray:
    """Pads rows with zeros to a multiple of the devices; reshapes to ``[D, R, ...]`` for pmap."""
    missing = -len(leaf) % devices
    if missing:
        leaf = np.concatenate([leaf, np.zeros((missing, *leaf.shape[1:]), leaf.dtype)])
    return leaf.reshape(devices, -1, *leaf.shape[1:]) if per_device else leaf


def _state_layout(whole: Any, rows: Any) -> RoundState:
    return RoundState(round=whole, seed=whole, algorithm=whole, memory=rows, sampler=whole)


def _vmap(spmd: Spmd, plan: Plan, layout: PyTree, advances: bool) -> Compiled:
    mapped = jax.vmap(spmd, in_axes=None, out_axes=None, axis_name=AXIS, axis_size=1)
    jitted = jax.jit(mapped, donate_argnums=(0,) if advances else ())
    return Compiled(jitted, jitted.lower, lambda state, inputs: (state, inputs))


def _pmap(spmd: Spmd, plan: Plan, layout: PyTree, advances: bool) -> Compiled:
    state_axes = _state_layout(None, 0)
    input_axes = jax.tree.map(lambda blocks: 0 if blocks else None, layout)
    mesh = mesh_of(plan)
    devices = list(plan.devices)
    # pmap needs at least one mapped argument, and an algorithm without memory has none.
    ranks = jax.device_put(jnp.arange(len(devices)), NamedSharding(mesh, P(AXIS)))
    axes = {
        "in_axes": (state_axes, input_axes, 0),
        "out_axes": (state_axes, None) if advances else None,
    }
    mapped = jax.pmap(
        lambda state, inputs, rank: spmd(state, inputs),
        AXIS,
        devices=devices,
        donate_argnums=(0,) if advances else (),
        **axes,
    )
    return Compiled(
        lambda state, inputs: mapped(state, inputs, ranks),
        lambda state, inputs: mapped.lower(state, inputs, ranks),
        lambda state, inputs: (state, inputs, ranks),
    )


def _shard_map(spmd: Spmd, plan: Plan, layout: PyTree, advances: bool) -> Compiled:
    mesh = mesh_of(plan)
    state_specs = _state_layout(P(), P(AXIS))
    input_specs = jax.tree.map(lambda blocks: P(AXIS) if blocks else P(), layout)
    specs = {
        "in_specs": (state_specs, input_specs),
        "out_specs": (state_specs, P()) if advances else P(),
    }
    mapped = jax.shard_map(spmd, mesh=mesh, axis_names={AXIS}, check_vma=False, **specs)
    donated = (0,) if advances else ()
    plain = jax.jit(mapped, donate_argnums=donated)

    def jitted(state: RoundState) -> Any:
        if plan.devices_per_client == 1:
            return plain
        # XLA would choose the layout of the results, but the next round expects that of this one.
        whole = NamedSharding(mesh, P())
        targets = (state_shardings(plan, mesh, state), whole) if advances else whole
        return jax.jit(mapped, donate_argnums=donated, out_shardings=targets)

    return Compiled(
        lambda state, inputs: jitted(state)(state, inputs),
        lambda state, inputs: jitted(state).lower(state, inputs),
        lambda state, inputs: (state, inputs),
    )


ADAPTERS = {"vmap": _vmap, "pmap": _pmap, "shard_map": _shard_map}
