"""Evaluation of each client's model on its own test examples, and statistics over clients.

Clients go through the engine's queue, so that unequal test sets need no padding.
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
from fedjax_sim.core.types import (
    Algorithm,
    Array,
    Mean,
    Member,
    Metrics,
    Objective,
    PyTree,
    RoundState,
    Upload,
)
from fedjax_sim.data.batching import BatchIndices, LocalWork, fetch, local_steps, most_steps
from fedjax_sim.data.population import Population, Table, to_table
from fedjax_sim.engine.devices.backends import BLOCKS, Backend, make_backend
from fedjax_sim.engine.host.examples import most_examples, pack
from fedjax_sim.engine.lanes.queue import Queue
from fedjax_sim.engine.plan import AXIS, Plan
from fedjax_sim.engine.program import Program
from fedjax_sim.engine.trip import run_shard
from fedjax_sim.engine.work import Client, Finished, Work, drawing

LANES = 8
"""Lanes of an evaluation whose plan leaves the number open."""
BLOCK_BYTES = 2**26
"""Bytes of examples that are copied to the devices at once, if the examples are kept on the
host."""

Numbers = dict[str, float]
"""Results of an evaluation, by name."""


def client_evaluation(
    algorithm: Algorithm, objective: Objective, data: Population, program: Program, batch_size: int
) -> Callable[[RoundState], Numbers]:
    """Makes the evaluation of each client's model on its own examples.

    Args:
      algorithm: the algorithm of the state; its ``personal`` makes a client's model.
      objective: reports the metrics.
      data: the clients' test examples; clients without any are left out.
      program: the program of the rounds, for its devices and its client memory.
      batch_size: examples of a client evaluated at once.

    Returns:
      ``state -> numbers``, named ``clients/<metric>...``.
    """
    plan = program.plan
    work = LocalWork(batch_size, 1, None, shuffle=False)
    backend = make_backend(plan)
    limit = int(data.sizes.max())
    spmd = partial(client_metrics, algorithm, objective, plan, work, limit, data.clients)
    statistics = partial(all_statistics, lower_is_better=objective.lower_is_better)
    if plan.data == "device":
        table = backend.share(to_table(data))
        resident = backend.inspect(spmd)
        return lambda state: statistics(jax.device_get(resident.run(state, table)))
    compiled = backend.inspect(spmd, BLOCKS)

    def numbers(state: RoundState) -> Numbers:
        collected = []
        for ids, memory, table in client_blocks(data, program, backend, state):
            metrics = jax.device_get(compiled.run(replace(state, memory=memory), table))
            exists = ids < data.clients
            collected.append(jax.tree.map(lambda leaf, exists=exists: leaf[exists], metrics))
        return statistics(jax.tree.map(lambda *leaves: np.concatenate(leaves), *collected))

    return numbers


def client_blocks(
    data: Population, program: Program, backend: Backend, state: RoundState
) -> Iterator[tuple[np.ndarray, PyTree, Table]]:
    """Copies examples that are kept on the host to the devices, some clients at a time.

    Args:
      data: the clients' test examples, on the host.
      program: the program of the rounds, for its plan and its client memory.
      backend: copies to the devices.
      state: holds the client memory, unless the host keeps it.

    Yields:
      The ids of the clients (int64, N in empty places), and their memory and examples on the
      devices.
    """
    blocks = _split_clients(data, program.plan.replicas)
    width = max(len(ids) for ids in blocks[0])
    capacity = max(1, *(most_examples(data, clients) for clients in blocks))
    for clients in blocks:
        padded = [
            np.pad(ids, (0, width - len(ids)), constant_values=data.clients) for ids in clients
        ]
        ids = np.concatenate(padded)
        if program.host_memory is None:
            memory = state.memory
        else:
            memory = program.host_memory.fetch_to_devices(ids)
        table = backend.deal(pack(data, program.plan, clients, width, capacity, []))
        yield ids, memory, table


def _split_clients(data: Population, devices: int) -> list[list[np.ndarray]]:
    """Splits the ids of all clients into blocks of about ``BLOCK_BYTES``, ``[block][device][k]``.

    Every device gets the clients whose memory it holds: a contiguous range of ids.
    """
    per_device = -(-data.clients // devices)
    nbytes = max(1, tree.nbytes((data.x, data.y)))
    width = max(1, min(per_device, BLOCK_BYTES * data.clients // nbytes))
    blocks = []
    for offset in range(0, per_device, width):
        clients = []
        for device in range(devices):
            first = device * per_device
            end = min(data.clients, first + per_device)
            start = min(first + offset, end)
            clients.append(np.arange(start, min(start + width, end)))
        blocks.append(clients)
    return blocks


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
    """Computes the metrics of each client; runs on every device.

    Each device evaluates the clients whose memory it holds, so that no memory is copied.

    Args:
      algorithm: its ``personal`` makes a client's model.
      objective: reports the metrics.
      plan: the plan of the rounds.
      local_work: one pass over the examples, in order.
      limit: static, examples of the largest client.
      clients: static, N.
      state: the state of the run.
      table: the clients' test examples: of all clients, or, with ``ids``, of this device's clients.

    Returns:
      Metrics ``[N]`` of all clients; or, with ``ids``, of all devices' clients in their order.
    """
    devices = plan.replicas
    # An evaluation keeps nothing between its steps, so the size of a lane's state cannot decide.
    plan = plan._replace(limit=limit, lanes=LANES if plan.lanes == "auto" else plan.lanes)
    block = -(-clients // devices)
    first = lax.axis_index(AXIS) * block if devices > 1 else 0
    ids = first + jnp.arange(block, dtype=jnp.int32) if table.ids is None else table.ids
    size = jnp.where(ids < clients, tree.take(table.size, table.place(ids)), 0)
    steps = local_steps(local_work, size)
    longest_first = jnp.argsort(-steps, stable=True).astype(jnp.int32)
    members = tree.take(Member(ids, steps, size, jnp.zeros_like(ids)), longest_first)
    slots = longest_first if plan.client_memory == "host" else members.id - first
    queue = Queue(members, slots, jnp.sum(steps > 0, dtype=jnp.int32))
    work = evaluation_work(algorithm, objective, local_work, limit, state, table)
    reduced = run_shard(plan, work, queue, state.memory)
    metrics = jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf).at[longest_first].set(leaf), reduced.clients
    )
    if devices > 1:
        metrics = jax.tree.map(lambda leaf: lax.all_gather(leaf, AXIS, tiled=True), metrics)
    if table.ids is None:
        metrics = jax.tree.map(lambda leaf: leaf[:clients], metrics)
    return metrics


def evaluation_work(
    algorithm: Algorithm,
    objective: Objective,
    local_work: LocalWork,
    limit: int,
    state: RoundState,
    table: Table,
) -> Work:
    """Makes the work of an evaluation for the engine: it only reports metrics.

    Args:
      algorithm: its ``personal`` makes a client's model.
      objective: reports the metrics.
      local_work: one pass over the examples, in order.
      limit: static, examples of the largest client.
      state: the state of the run.
      table: the clients' test examples.
    """
    no_key = jnp.zeros((2,), jnp.uint32)

    def enrol(member: Member) -> Client:
        return Client(member, table.place(member.id), no_key, no_key)

    def start(client: Client, memory: PyTree) -> PyTree:
        return ()

    def step(
        client: Client, memory: PyTree, local: PyTree, k: Array, indices: BatchIndices
    ) -> tuple[PyTree, Metrics]:
        variables = algorithm.personal(algorithm.broadcast(state.algorithm, client.member), memory)
        return (), objective.loss(variables, make_key(0), fetch(table, indices), False)[1][1]

    def finish(client: Client, memory: PyTree, local: PyTree) -> Finished:
        return Finished(Upload((), weight=(), count=()), (), None, {})

    draw = drawing(local_work, limit, table)
    bound = most_steps(local_work, limit)
    return Work(enrol, start, draw, step, finish, "sum", bound)


# -------------------------------------------------------------------------------------- statistics


def all_statistics(metrics: dict[str, Mean], lower_is_better: tuple[str, ...] = ()) -> Numbers:
    """Computes the statistics over clients of every metric.

    Args:
      metrics: ``[N]`` in every leaf, numpy; weight 0 for clients without examples.
      lower_is_better: names of the metrics whose lowest value is the best one.
    """
    numbers: Numbers = {}
    for name, mean in metrics.items():
        numbers |= client_statistics(name, mean, name in lower_is_better)
    return numbers


def client_statistics(name: str, metric: Mean, lower_is_better: bool = False) -> Numbers:
    """Computes statistics of one metric over clients.

    Args:
      name: name of the metric.
      metric: ``[N]`` in every leaf, numpy; weight 0 for clients without examples.
      lower_is_better: whether the lowest value is the best one.

    Returns:
      ``clients/<name>``, the mean weighted by examples; with ``_mean`` and ``_std``, the unweighted
      mean and deviation; with ``_worst10``, the mean of the worst tenth of the clients; with
      ``_d1`` to ``_d9``, the deciles. Nothing if no client has examples.

    Example:

        >>> import fedjax_sim as fs, numpy as np
        >>> from fedjax_sim.simulation.evaluate_clients import client_statistics
        >>> loss = fs.Mean(total=np.array([1.0, 6.0, 0.0]), weight=np.array([1.0, 3.0, 0.0]))
        >>> numbers = client_statistics("loss", loss, lower_is_better=True)
        >>> numbers["clients/loss"], numbers["clients/loss_mean"], numbers["clients/loss_worst10"]
        (1.75, 1.5, 2.0)
    """
    seen = metric.weight > 0
    if not seen.any():
        return {}
    values = np.sort(metric.total[seen] / metric.weight[seen])
    tenth = max(1, round(len(values) / 10))
    worst = values[-tenth:] if lower_is_better else values[:tenth]
    deciles = {f"clients/{name}_d{d}": float(np.quantile(values, d / 10)) for d in range(1, 10)}
    return {
        f"clients/{name}": float(metric.total[seen].sum() / metric.weight[seen].sum()),
        f"clients/{name}_mean": float(values.mean()),
        f"clients/{name}_std": float(values.std()),
        f"clients/{name}_worst10": float(worst.mean()),
        **deciles,
    }
