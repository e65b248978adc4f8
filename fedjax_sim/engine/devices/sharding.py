"""How one client lies over several devices: which dimension of each array is split over the mesh's second axis.

The first axis is the program's own: shards of the cohort are spread over it, and the program says what goes from one place of it to
another. The second is XLA's. Nothing is said about it but how arrays lie on it, here, and XLA's partitioner makes of one client's
step a program for several devices, with the exchange between them that it takes.
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
"""Numbers in an array that is not worth splitting."""


def mesh_of(plan: Plan) -> Mesh:
    """The plan's devices: in a row, or as groups that share a model."""
    if plan.devices_per_client == 1:
        return Mesh(np.array(plan.devices), (AXIS,))
    return Mesh(
        np.array(plan.devices).reshape(plan.replicas, plan.devices_per_client), (AXIS, MODEL)
    )


def near_mesh(plan: Plan) -> Mesh:
    """The first devices of this process that share a model."""
    return Mesh(np.array(plan.local_devices[: plan.devices_per_client]), (MODEL,))


def largest(ways: int, shape: tuple[int, ...]) -> P:
    """The default: of an array that is not small, the largest dimension that so many devices divide; the last one of equals."""
    fits = [(length, place) for place, length in enumerate(shape) if length % ways == 0]
    if math.prod(shape) < SMALL or not fits:
        return P()
    return P(*(None,) * max(fits)[1], MODEL)


BATCH = "batch"


def by_parts(ways: int, path: str, shape: tuple[int, ...]) -> P:
    """``split = "model"``: arrays are split, a batch is left to XLA."""
    return P() if path.startswith(BATCH) else largest(ways, shape)


def by_examples(ways: int, path: str, shape: tuple[int, ...]) -> P:
    """``split = "batch"``: the examples of a batch that so many devices divide are split, all else is whole on each device."""
    return P(MODEL) if path.startswith(BATCH) and shape[0] % ways == 0 else P()


RULES = {"model": by_parts, "batch": by_examples}


def spec_of(plan: Plan, path: str, shape: tuple[int, ...]) -> P:
    """How an array of one client or of the server lies on the second axis, by the plan's rule.

    Raises:
      FedError: where the user's rule names another axis, or splits what the devices do not divide.
    """
    if plan.devices_per_client == 1:
        return P()
    spec = (
        plan.layout(path, shape)
        if plan.layout and not path.startswith(BATCH)
        else RULES[plan.split](plan.devices_per_client, path, shape)
    )
    names = tuple(spec) if isinstance(spec, P) else ("?",)
    known = set(names) <= {None, MODEL} and names.count(MODEL) <= 1 and len(names) <= len(shape)
    what, do = (
        f"engine.layout must name {MODEL!r} for at most one dimension of {path}",
        f"return PartitionSpec(), or one with {MODEL!r} once",
    )
    require(known, what, got=f"{spec} for the shape {shape}", fix=do, setting="engine.layout")
    length = shape[names.index(MODEL)] if MODEL in names else 0
    what, got = (
        f"engine.layout splits a dimension of {path} that engine.devices_per_client does not divide",
        f"{length} over {plan.devices_per_client} devices",
    )
    require(
        length % plan.devices_per_client == 0,
        what,
        got=got,
        fix="split another dimension, or none with PartitionSpec()",
        setting="engine.layout",
    )
    return spec


def laid(plan: Plan, mesh: Mesh, name: str, values: PyTree, rows: bool = False) -> PyTree:
    """Where every leaf of a tree of this name is: by the rule, and, where leaves are rows of clients, split by rows before."""

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        spec = spec_of(plan, f"{name}.{tree.name(path)}" if path else name, np.shape(leaf)[rows:])
        return NamedSharding(mesh, P(AXIS, *spec) if rows else spec)

    return jax.tree_util.tree_map_with_path(one, values)


def laid_state(plan: Plan, mesh: Mesh, state: RoundState, rows: bool = True) -> RoundState:
    """Where every leaf of a state is: the algorithm's own by the rule, clients' memory (all ``rows``, or a single one) too, the rest
    whole."""
    whole: Any = jax.tree.map(lambda leaf: NamedSharding(mesh, P()), state)
    own, memory = (
        laid(plan, mesh, "algorithm", state.algorithm),
        laid(plan, mesh, "memory", state.memory, rows),
    )
    return whole.replace(algorithm=own, memory=memory)


def spread(plan: Plan, work: Work) -> Work:
    """The work with its results laid out by the rule; as it is where a client's model has a device to itself."""
    if plan.devices_per_client == 1:
        return work

    def start(client: Any, memory: PyTree) -> PyTree:
        return hold(plan, "local", work.start(client, memory))

    def step(
        client: Any, memory: PyTree, local: PyTree, k: Any, drawn: Any
    ) -> tuple[PyTree, PyTree]:
        local, metrics = work.step(client, memory, local, k, hold(plan, BATCH, drawn))
        return hold(plan, "local", local), metrics

    def finish(client: Any, memory: PyTree, local: PyTree) -> Finished:
        left = work.finish(client, memory, local)
        return left._replace(
            upload=hold(plan, "upload", left.upload), memory=hold(plan, "memory", left.memory)
        )

    return work._replace(start=start, step=step, finish=finish)


def hold(plan: Plan, name: str, values: PyTree) -> PyTree:
    """Values of one client, traced, laid out by the rule."""

    def one(leaf: Any, where: NamedSharding) -> Any:
        # What is small may be split by whoever computes it; to make it whole would take an exchange for each of many.
        return with_sharding_constraint(leaf, where) if MODEL in where.spec else leaf

    return jax.tree.map(one, values, laid(plan, mesh_of(plan), name, values))


def nbytes(plan: Plan, name: str, values: PyTree) -> int:
    """Bytes on each device of arrays, or shapes, that are laid out by the rule."""
    places = jax.tree.leaves(laid(plan, mesh_of(plan), name, values))
    parts = [plan.devices_per_client if MODEL in where.spec else 1 for where in places]
    return sum(
        tree.nbytes(leaf) // part for leaf, part in zip(jax.tree.leaves(values), parts, strict=True)
    )
