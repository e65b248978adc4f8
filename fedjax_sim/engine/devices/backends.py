"""Three thin adapters over one SPMD function ``(state, given) -> (state, outcome)`` written against one axis name.

``vmap`` runs it on one device, ``pmap`` and ``shard_map`` on several. Client memory is split over the devices by rows, and so is what
is given in blocks; everything else is replicated. Each adapter also knows how a *logical* state (memory ``[N, ...]`` on the host) is
laid out for it. The devices may belong to several processes, each of which runs all of this on its own.
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
from fedjax_sim.engine.devices.sharding import laid, laid_state, mesh_of, near_mesh
from fedjax_sim.engine.plan import AXIS, Plan
from fedjax_sim.runtime.devices import aligned_copy

Spmd = Callable[[RoundState, PyTree], PyTree]


WHOLE, BLOCKS = False, True
"""How a part of what is given lies on the devices: the same on each, or a block of rows on each."""


class Compiled(NamedTuple):
    """An SPMD function as a program. It compiles at its first call, or is lowered and compiled by whoever wants to look at it first."""

    run: Callable[[RoundState, PyTree], PyTree]
    lower: Callable[[RoundState, PyTree], jax.stages.Lowered]
    arguments: Callable[[RoundState, PyTree], tuple[Any, ...]]
    """What the lowered program, once compiled, is called with."""


class Backend(NamedTuple):
    """Where and how an SPMD function runs."""

    advance: Callable[..., Compiled]
    """``(spmd, layout=WHOLE)``: a function that returns the next state and what it has to say. It donates the state. ``layout`` has
    ``WHOLE`` or ``BLOCKS`` for each part of what is given."""
    inspect: Callable[..., Compiled]
    """``(spmd, layout=WHOLE)``: a function that only looks at the state; what it returns is the same on every device."""
    first: Callable[..., RoundState]
    """``(make, sizes, variables, seed) -> state``: what ``make`` makes of them, on the devices of one model; one row of memory."""
    place: Callable[[RoundState], RoundState]
    """A logical state, copied onto the devices."""
    share: Callable[[PyTree], PyTree]
    """Values that every device needs whole and only reads, such as data. Devices of a CPU share one copy."""
    deal: Callable[..., PyTree]
    """``(blocks, memory=False)``: blocks of equal shapes, one for each device of this process, or for those that share a model, as values
    that lie on the devices in blocks; rows of clients' ``memory`` as theirs do."""
    logical: Callable[[RoundState, int], RoundState]
    """``(state, N)``: numpy leaves, memory ``[N, ...]``."""


def make_backend(plan: Plan) -> Backend:
    """The adapter that the plan names."""
    mesh = mesh_of(plan)
    whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
    per_device = plan.backend == "pmap"
    adapter = ADAPTERS[plan.backend]

    def share(values: PyTree) -> PyTree:
        return put(jax.tree.map(aligned_copy, values) if plan.platform == "cpu" else values, whole)

    def place(state: RoundState) -> RoundState:
        # Copied first: the round donates its state, and the caller keeps what it passed in.
        own = jax.tree.map(lambda leaf: np.array(leaf, copy=True), replace(state, memory=()))
        blocks = jax.tree.map(
            lambda leaf: _blocks(np.asarray(leaf), plan.replicas, per_device), state.memory
        )
        filled = replace(own, memory=blocks)
        return jax.tree.map(put, filled, laid_state(plan, mesh, filled))

    def deal(blocks: Sequence[PyTree], memory: bool = False) -> PyTree:
        def join(where: NamedSharding, *leaves: np.ndarray) -> jax.Array:
            pieces = [leaf[None] if per_device else leaf for leaf in leaves]
            shape = (plan.replicas * len(pieces[0]), *pieces[0].shape[1:])
            parts = where.addressable_devices_indices_map(shape)
            # Devices that share a model have the same clients.
            mine = [
                (device, pieces[i // plan.devices_per_client], parts[device] or ())
                for i, device in enumerate(plan.local_devices)
            ]
            placed = [
                jax.device_put(piece[(slice(None), *part[1:])], device)
                for device, piece, part in mine
            ]
            return jax.make_array_from_single_device_arrays(shape, where, placed)

        places = (
            laid(plan, mesh, "memory", blocks[0], True)
            if memory
            else jax.tree.map(lambda leaf: split, blocks[0])
        )
        return jax.tree.map(join, places, *blocks)

    def logical(state: RoundState, population: int) -> RoundState:
        def table(leaf: np.ndarray) -> np.ndarray:
            return (leaf.reshape(-1, *leaf.shape[2:]) if per_device else leaf)[:population]

        rest = jax.tree.map(on_host, replace(state, memory=()))
        return replace(rest, memory=jax.tree.map(table, collected(state.memory)))

    def program(advances: bool) -> Callable[..., Compiled]:
        return lambda spmd, layout=WHOLE: adapter(spmd, plan, layout, advances)

    return Backend(program(True), program(False), partial(first, plan), place, share, deal, logical)


def first(
    plan: Plan, make: Callable[..., RoundState], sizes: Any, variables: Variables, seed: Any
) -> RoundState:
    """``make(sizes, variables, seed)``, compiled. Where models are spread, no device holds one that is whole."""
    if plan.devices_per_client == 1:
        return jax.jit(make)(sizes, variables, seed)
    mesh = near_mesh(plan)
    variables = jax.tree.map(put, variables, laid(plan, mesh, "algorithm", variables))
    like = jax.eval_shape(make, sizes, variables, seed)
    return jax.jit(make, out_shardings=laid_state(plan, mesh, like, rows=False))(
        sizes, variables, seed
    )


def nearest(plan: Plan, values: PyTree) -> PyTree:
    """Values of the algorithm's, such as a model, as one device has them, or the devices that share a model: enough to compute with,
    and it spares the others a program."""
    if plan.devices_per_client == 1:
        return jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, values)

    def one(leaf: jax.Array, where: NamedSharding) -> jax.Array:
        held = {part.device: part for part in leaf.addressable_shards}
        parts = where.devices_indices_map(leaf.shape)
        if all(device in held and held[device].index == part for device, part in parts.items()):
            return jax.make_array_from_single_device_arrays(
                leaf.shape, where, [held[device].data for device in parts]
            )
        return jax.device_put(on_host(leaf), where)

    return jax.tree.map(one, values, laid(plan, near_mesh(plan), "algorithm", values))


def put(values: PyTree, where: NamedSharding) -> PyTree:
    """Values that every process has, as they lie on the devices of all."""
    if where.is_fully_addressable:
        return jax.device_put(values, where)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(
            np.shape(leaf), where, lambda part: np.asarray(leaf)[part]
        ),
        values,
    )


def on_host(leaf: jax.Array) -> np.ndarray:
    """An array of which this process has all parts, as numpy."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    whole = np.empty(leaf.shape, leaf.dtype)
    for part in leaf.addressable_shards:
        whole[part.index] = part.data
    return whole


def collected(values: PyTree) -> PyTree:
    """Values on the devices of all processes, as numpy on each."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(values)):
        return jax.tree.map(np.asarray, values)
    return multihost_utils.process_allgather(values, tiled=True)


def _blocks(leaf: np.ndarray, devices: int, per_device: bool) -> np.ndarray:
    """Rows padded with zeros to a multiple of the devices; ``[D, R, ...]`` for pmap."""
    missing = -len(leaf) % devices
    padded = (
        np.concatenate([leaf, np.zeros((missing, *leaf.shape[1:]), leaf.dtype)])
        if missing
        else leaf
    )
    return padded.reshape(devices, -1, *padded.shape[1:]) if per_device else padded


def _layout(whole: Any, rows: Any) -> RoundState:
    """How the parts of a state lie on the devices: memory by rows, the rest whole."""
    return RoundState(round=whole, seed=whole, algorithm=whole, memory=rows, sampler=whole)


def _vmap(spmd: Spmd, plan: Plan, layout: PyTree, advances: bool) -> Compiled:
    one = jax.vmap(spmd, in_axes=None, out_axes=None, axis_name=AXIS, axis_size=1)
    jitted = jax.jit(one, donate_argnums=(0,) if advances else ())
    return Compiled(jitted, jitted.lower, lambda s, t: (s, t))


def _pmap(spmd: Spmd, plan: Plan, layout: PyTree, advances: bool) -> Compiled:
    state, given = _layout(None, 0), jax.tree.map(lambda blocks: 0 if blocks else None, layout)
    mesh, devices = mesh_of(plan), list(plan.devices)
    # pmap wants at least one mapped argument, and an algorithm without memory has none.
    ranks = jax.device_put(jnp.arange(len(devices)), NamedSharding(mesh, P(AXIS)))
    axes = {"in_axes": (state, given, 0), "out_axes": (state, None) if advances else None}
    mapped = jax.pmap(
        lambda s, t, rank: spmd(s, t),
        AXIS,
        devices=devices,
        donate_argnums=(0,) if advances else (),
        **axes,
    )
    return Compiled(
        lambda s, t: mapped(s, t, ranks),
        lambda s, t: mapped.lower(s, t, ranks),
        lambda s, t: (s, t, ranks),
    )


def _shard_map(spmd: Spmd, plan: Plan, layout: PyTree, advances: bool) -> Compiled:
    mesh, state, given = (
        mesh_of(plan),
        _layout(P(), P(AXIS)),
        jax.tree.map(lambda blocks: P(AXIS) if blocks else P(), layout),
    )
    specs = {"in_specs": (state, given), "out_specs": (state, P()) if advances else P()}
    mapped = jax.shard_map(spmd, mesh=mesh, axis_names={AXIS}, check_vma=False, **specs)
    donated, whole = (0,) if advances else (), NamedSharding(mesh, P())
    plain = jax.jit(mapped, donate_argnums=donated)

    def jitted(state: RoundState) -> Any:
        if plan.devices_per_client == 1:
            return plain
        # XLA would lay out what is its own as it likes, but the next round takes the state as this one did.
        return jax.jit(
            mapped,
            donate_argnums=donated,
            out_shardings=(laid_state(plan, mesh, state), whole) if advances else whole,
        )

    return Compiled(
        lambda s, t: jitted(s)(s, t), lambda s, t: jitted(s).lower(s, t), lambda s, t: (s, t)
    )


ADAPTERS = {"vmap": _vmap, "pmap": _pmap, "shard_map": _shard_map}
