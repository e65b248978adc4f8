"""Evaluation: the global model on the global test set, and every client's own model on its own test examples.

Both are compiled and batched. Clients go through the engine's queue, so unequal test sets cost no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.random import key as make_key

from fedjax_sim.core import tree
from fedjax_sim.core.errors import positive
from fedjax_sim.core.types import (
    Algorithm,
    Array,
    Batch,
    Mean,
    Member,
    Metrics,
    Objective,
    PyTree,
    RoundState,
    Upload,
    Variables,
)
from fedjax_sim.data.batching import BatchIndices, LocalWork, fetch, local_steps, most_steps
from fedjax_sim.data.population import Examples, Population, Table, rows, to_table
from fedjax_sim.engine.devices.backends import BLOCKS, Backend, make_backend, nearest
from fedjax_sim.engine.host.examples import most_examples, pack
from fedjax_sim.engine.lanes.queue import Queue
from fedjax_sim.engine.plan import AXIS, Plan
from fedjax_sim.engine.program import Program
from fedjax_sim.engine.trip import run_shard
from fedjax_sim.engine.work import Client, Finished, Work, drawing
from fedjax_sim.engine.xla.rewrite import canonical
from fedjax_sim.tasks import Task

LANES = 8
"""Of an evaluation that may choose."""
PORTION = 2**26
"""Bytes of examples that are brought to a device at once, of those that stay on the host."""
LOWER_IS_BETTER = frozenset({"loss"})
"""Metrics whose worst clients are those with the highest values."""

Numbers = dict[str, float]


def make_evaluation(
    algorithm: Algorithm,
    task: Task,
    program: Program,
    *,
    batch_size: int = 256,
    clients: bool = True,
) -> Callable[[RoundState], Numbers]:
    """``state -> numbers``: ``test/<metric>`` on the global test set, ``clients/<metric>...`` over clients.

    Args:
      algorithm: whose state it is.
      task: the data, and the objective that reports metrics.
      program: the round's program; evaluation runs on its devices.
      batch_size: examples evaluated at once; clients use at most 32.
      clients: whether to evaluate each client's personal model (the global one, unless personalised) on its own test examples.
    """
    positive("evaluation.batch_size", batch_size)
    parts: list[Callable[[RoundState], Numbers]] = []
    if task.data.global_test is not None:
        parts.append(
            on_examples(algorithm, task.objective, task.data.global_test, batch_size, program.plan)
        )
    if clients and task.data.test is not None:
        parts.append(
            on_clients(algorithm, task.objective, task.data.test, program, min(batch_size, 32))
        )
    return lambda state: {name: value for part in parts for name, value in part(state).items()}


def on_examples(
    algorithm: Algorithm, objective: Objective, examples: Examples, batch_size: int, plan: Plan
) -> Callable[[RoundState], Numbers]:
    """The global model on examples that belong to nobody."""
    evaluate = jax.jit(lambda variables, batches: score(objective, variables, batches))
    batches = in_batches(examples, batch_size)

    def numbers(state: RoundState) -> Numbers:
        variables = nearest(plan, algorithm.variables(state.algorithm))
        return {
            f"test/{name}": float(mean.value)
            for name, mean in jax.device_get(evaluate(variables, batches)).items()
        }

    return numbers


def in_batches(examples: Examples, batch_size: int) -> Batch:
    """Examples as ``[batches, batch_size, ...]``, the last batch padded and masked."""
    n = rows(examples.x)
    size = min(batch_size, n)
    place = np.arange(-(-n // size) * size).reshape(-1, size)
    x, y = jax.tree.map(
        lambda leaf: np.asarray(leaf)[np.minimum(place, n - 1)], (examples.x, examples.y)
    )
    return jax.tree.map(jnp.asarray, Batch(x, y, jnp.asarray(place < n)))


def score(objective: Objective, variables: Variables, batches: Batch) -> Metrics:
    """Metrics over all batches, in evaluation mode."""

    @canonical
    def one(batch: Batch) -> Metrics:
        return objective.loss(variables, make_key(0), batch, False)[1][1]

    def add(running: Metrics, batch: Batch) -> tuple[Metrics, None]:
        return tree.add(running, one(batch)), None

    blank = tree.zeros_like(jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], batches)))
    return lax.scan(add, blank, batches)[0]


def on_clients(
    algorithm: Algorithm, objective: Objective, data: Population, program: Program, batch_size: int
) -> Callable[[RoundState], Numbers]:
    """Every client's personal model on its own examples; clients without any are left out."""
    plan, work = program.plan, LocalWork(batch_size, 1, None, shuffle=False)
    backend = make_backend(plan)
    spmd = partial(
        client_metrics, algorithm, objective, plan, work, int(data.sizes.max()), data.clients
    )
    if plan.data == "device":
        table, whole = backend.share(to_table(data)), backend.inspect(spmd)
        return lambda state: _spreads(jax.device_get(whole.run(state, table)))
    portion = backend.inspect(spmd, BLOCKS)

    def numbers(state: RoundState) -> Numbers:
        found = []
        for ids, memory, table in portions(data, program, backend, state):
            metrics = jax.device_get(portion.run(replace(state, memory=memory), table))
            found.append(jax.tree.map(lambda leaf, ids=ids: leaf[ids < data.clients], metrics))
        return _spreads(jax.tree.map(lambda *leaves: np.concatenate(leaves), *found))

    return numbers


def portions(
    data: Population, program: Program, backend: Backend, state: RoundState
) -> Iterator[tuple[np.ndarray, PyTree, Table]]:
    """Examples that stay on the host, some clients at a time: their ids, N for none, memory and tables on the devices."""
    devices = program.plan.replicas
    block = -(-data.clients // devices)
    each = max(1, min(block, PORTION * data.clients // max(1, tree.nbytes((data.x, data.y)))))
    starts = [
        [min(d * block + j, data.clients, (d + 1) * block) for d in range(devices)]
        for j in range(0, block, each)
    ]
    ends = [
        [min(start + each, data.clients, (d + 1) * block) for d, start in enumerate(row)]
        for row in starts
    ]
    rounds = [
        [np.arange(*pair) for pair in zip(*rows, strict=True)]
        for rows in zip(starts, ends, strict=True)
    ]
    capacity = max(1, *(most_examples(data, hands) for hands in rounds))
    for hands in rounds:
        ids = np.concatenate(
            [np.pad(hand, (0, each - len(hand)), constant_values=data.clients) for hand in hands]
        )
        memory = (
            state.memory
            if program.host_memory is None
            else program.host_memory.fetch_to_devices(ids)
        )
        yield ids, memory, backend.deal(pack(data, program.plan, hands, each, capacity, []))


def client_metrics(
    algorithm: Algorithm,
    objective: Objective,
    plan: Plan,
    local_work: LocalWork,
    limit: int,
    clients: int,
    state: RoundState,
    table: Table,
) -> dict[str, Mean]:
    """Metrics by client, of all ``[N]``, or, device by device, of those whose examples were brought. Each device evaluates clients
    whose memory it holds, so no memory travels."""
    # Nothing is held between an evaluation's steps, so that lanes cannot be chosen by what they hold.
    devices, limited = (
        plan.replicas,
        plan._replace(limit=limit, lanes=LANES if plan.lanes == "auto" else plan.lanes),
    )
    block = -(-clients // devices)
    first = lax.axis_index(AXIS) * block if devices > 1 else 0
    ids = first + jnp.arange(block, dtype=jnp.int32) if table.ids is None else table.ids
    size = jnp.where(ids < clients, tree.take(table.size, table.place(ids)), 0)
    steps = local_steps(local_work, size)
    order = jnp.argsort(-steps, stable=True).astype(jnp.int32)
    members = tree.take(Member(ids, steps, size, jnp.zeros_like(ids)), order)
    slots = order if plan.client_memory == "host" else members.id - first
    queue = Queue(members, slots, jnp.sum(steps > 0, dtype=jnp.int32))
    reduced = run_shard(
        limited,
        evaluation_work(algorithm, objective, local_work, limit, state, table),
        queue,
        state.memory,
    )
    mine = jax.tree.map(lambda leaf: jnp.zeros_like(leaf).at[order].set(leaf), reduced.clients)
    everyone = (
        jax.tree.map(lambda leaf: lax.all_gather(leaf, AXIS, tiled=True), mine)
        if devices > 1
        else mine
    )
    return (
        everyone if table.ids is not None else jax.tree.map(lambda leaf: leaf[:clients], everyone)
    )


def evaluation_work(
    algorithm: Algorithm,
    objective: Objective,
    local_work: LocalWork,
    limit: int,
    state: RoundState,
    table: Table,
) -> Work:
    """Evaluation as work for the engine: nothing is learned, sent or remembered."""

    def step(
        client: Client, memory: PyTree, local: PyTree, k: Array, drawn: BatchIndices
    ) -> tuple[PyTree, Metrics]:
        variables = algorithm.personal(algorithm.broadcast(state.algorithm, client.member), memory)
        return (), objective.loss(variables, make_key(0), fetch(table, drawn), False)[1][1]

    def finish(client: Client, memory: PyTree, local: PyTree) -> Finished:
        return Finished(Upload((), weight=(), count=()), (), None, {})

    nothing = jnp.zeros((2,), jnp.uint32)
    enrol, start = (
        lambda member: Client(member, table.place(member.id), nothing, nothing),
        lambda client, memory: (),
    )
    return Work(
        enrol,
        start,
        drawing(local_work, limit, table),
        step,
        finish,
        "sum",
        most_steps(local_work, limit),
    )


def _spreads(metrics: dict[str, Mean]) -> Numbers:
    return {
        k: v for name, mean in metrics.items() for k, v in client_statistics(name, mean).items()
    }


def client_statistics(name: str, metric: Mean) -> Numbers:
    """One metric over clients: weighted by examples, unweighted mean and deviation, worst tenth, deciles."""
    seen = metric.weight > 0
    if not seen.any():
        return {}
    values = np.sort(metric.total[seen] / metric.weight[seen])
    tenth = max(1, round(len(values) / 10))
    worst = values[-tenth:] if name in LOWER_IS_BETTER else values[:tenth]
    deciles = {f"clients/{name}_d{d}": float(np.quantile(values, d / 10)) for d in range(1, 10)}
    return {
        f"clients/{name}": float(metric.total[seen].sum() / metric.weight[seen].sum()),
        f"clients/{name}_mean": float(values.mean()),
        f"clients/{name}_std": float(values.std()),
        f"clients/{name}_worst10": float(worst.mean()),
        **deciles,
    }
