"""How one client is split over several devices: which array dimensions lie on which mesh axis.

The first mesh axis belongs to the program: shards of the cohort are spread over it, and the program
states every exchange along it. The second axis belongs to XLA: this module only says how arrays lie
on it, and XLA's partitioner turns one client's step into a program for several devices, with the
exchange that it needs.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.lax import with_sharding_constraint
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fedjax_sim.core import tree
from fedjax_sim.core.errors import require
from fedjax_sim.core.types import PyTree, RoundState
from fedjax_sim.engine.plan import AXIS, MODEL, Plan
from fedjax_sim.engine.work import Finished, Work

SMALL = 2**12
"""Arrays with fewer elements are not split."""


def mesh_of(plan: Plan) -> Mesh:
    """Returns the mesh of the plan's devices: one axis, or replicas by devices of one client."""
    if plan.devices_per_client == 1:
        return Mesh(np.array(plan.devices), (AXIS,))
    return Mesh(
        np.array(plan.devices).reshape(plan.replicas, plan.devices_per_client), (AXIS, MODEL)
    )


def local_mesh(plan: Plan) -> Mesh:
    """Returns the mesh of this process's first replica."""
    return Mesh(np.array(plan.local_devices[: plan.devices_per_client]), (MODEL,))


def split_largest(ways: int, shape: tuple[int, ...]) -> P:
    """The default rule: splits the largest dimension that ``ways`` divides, the last one of equals.

    Args:
      ways: devices of one client.
      shape: one client's array; an array with fewer than :data:`SMALL` elements is not split.

    Example:
      >>> from fedjax_sim.engine.devices.sharding import split_largest
      >>> tuple(split_largest(2, (64, 256)))
      (None, 'model')
    """
    dimensions = [(length, place) for place, length in enumerate(shape) if length % ways == 0]
    if math.prod(shape) < SMALL or not dimensions:
        return P()
    return P(*(None,) * max(dimensions)[1], MODEL)


BATCH = "batch"
"""First part of the paths of a batch's arrays."""


def split_model(ways: int, path: str, shape: tuple[int, ...]) -> P:
    """The rule of ``split = "model"``: arrays are split, a batch is left to XLA."""
    return P() if path.startswith(BATCH) else split_largest(ways, shape)


def split_batch(ways: int, path: str, shape: tuple[int, ...]) -> P:
    """The rule of ``split = "batch"``: only a batch whose size ``ways`` divides is split."""
    return P(MODEL) if path.startswith(BATCH) and shape[0] % ways == 0 else P()


RULES = {"model": split_model, "batch": split_batch}


def spec_of(plan: Plan, path: str, shape: tuple[int, ...]) -> P:
    """Returns how an array of one client or of the server lies on the second axis.

    Args:
      plan: its layout, or the rule of its ``split``.
      path: the array's path, such as ``local.params.head.kernel``.
      shape: one client's shape.

    Raises:
      FedError: if the user's rule names another axis, or splits a dimension that the devices do not
        divide.
    """
    if plan.devices_per_client == 1:
        return P()
    if plan.layout and not path.startswith(BATCH):
        spec = plan.layout(path, shape)
    else:
        spec = RULES[plan.split](plan.devices_per_client, path, shape)
    names = tuple(spec) if isinstance(spec, P) else ("?",)
    require(
        set(names) <= {None, MODEL} and names.count(MODEL) <= 1 and len(names) <= len(shape),
        f"engine.layout must name {MODEL!r} for at most one dimension of {path}",
        got=f"{spec} for the shape {shape}",
        fix=f"return PartitionSpec(), or one with {MODEL!r} once",
        setting="engine.layout",
    )
    length = shape[names.index(MODEL)] if MODEL in names else 0
    require(
        length % plan.devices_per_client == 0,
        f"engine.layout splits a dimension of {path}"
        " that engine.devices_per_client does not divide",
        got=f"{length} over {plan.devices_per_client} devices",
        fix="split another dimension, or none with PartitionSpec()",
        setting="engine.layout",
    )
    return spec


def shardings(plan: Plan, mesh: Mesh, name: str, values: PyTree, rows: bool = False) -> PyTree:
    """Returns the sharding of every leaf of a tree.

    Args:
      plan: its rule decides.
      mesh: the devices.
      name: first part of the leaves' paths: ``algorithm``, ``memory``, ``local``, ``upload``,
        ``batch``.
      values: arrays or shapes.
      rows: True if the leading axis of each leaf is clients; it then lies on the first mesh axis.
    """

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        full_path = f"{name}.{tree.name(path)}" if path else name
        spec = spec_of(plan, full_path, np.shape(leaf)[rows:])
        return NamedSharding(mesh, P(AXIS, *spec) if rows else spec)

    return jax.tree_util.tree_map_with_path(sharding, values)


def state_shardings(plan: Plan, mesh: Mesh, state: RoundState, rows: bool = True) -> RoundState:
    """Returns the sharding of every leaf of a state.

    The algorithm's state and client memory follow the plan's rule, the rest is replicated.

    Args:
      plan: its rule decides.
      mesh: the devices.
      state: arrays or shapes.
      rows: True if memory is the whole table, False if it is a single client's row.
    """
    replicated: Any = jax.tree.map(lambda leaf: NamedSharding(mesh, P()), state)
    return replicated.replace(
        algorithm=shardings(plan, mesh, "algorithm", state.algorithm),
        memory=shardings(plan, mesh, "memory", state.memory, rows),
    )


def constrain_work(plan: Plan, work: Work) -> Work:
    """Returns the work with its results split by the plan's rule.

    The work is unchanged if each client's model has a device to itself.
    """
    if plan.devices_per_client == 1:
        return work

    def start(client: Any, memory: PyTree) -> PyTree:
        return constrain(plan, "local", work.start(client, memory))

    def step(
        client: Any, memory: PyTree, local: PyTree, k: Any, indices: Any
    ) -> tuple[PyTree, PyTree]:
        local, metrics = work.step(client, memory, local, k, constrain(plan, BATCH, indices))
        return constrain(plan, "local", local), metrics

    def finish(client: Any, memory: PyTree, local: PyTree) -> Finished:
        results = work.finish(client, memory, local)
        return results._replace(
            upload=constrain(plan, "upload", results.upload),
            memory=constrain(plan, "memory", results.memory),
        )

    return work._replace(start=start, step=step, finish=finish)


def constrain(plan: Plan, name: str, values: PyTree) -> PyTree:
    """Constrains traced values of one client to lie as the plan's rule says.

    Args:
      plan: its rule decides.
      name: first part of the leaves' paths.
      values: one client's arrays.
    """

    def constrain_leaf(leaf: Any, sharding: NamedSharding) -> Any:
        # Small arrays may stay split as XLA computes them: replicating each takes an exchange.
        return with_sharding_constraint(leaf, sharding) if MODEL in sharding.spec else leaf

    return jax.tree.map(constrain_leaf, values, shardings(plan, mesh_of(plan), name, values))


def nbytes(plan: Plan, name: str, values: PyTree) -> int:
    """Returns the bytes on each device of arrays, or shapes, that lie as the plan's rule says.

    Args:
      plan: its rule decides.
      name: first part of the leaves' paths.
      values: one client's arrays or shapes.
    """
    leaf_shardings = jax.tree.leaves(shardings(plan, mesh_of(plan), name, values))
    parts = [plan.devices_per_client if MODEL in leaf.spec else 1 for leaf in leaf_shardings]
    return sum(
        tree.nbytes(leaf) // part for leaf, part in zip(jax.tree.leaves(values), parts, strict=True)
    )
