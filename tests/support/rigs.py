"""Every algorithm on a few engines, compiled once: one ragged population, cohorts by script."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from federation import (
    Data,
    Linear,
    Machine,
    machine,
    play,
    ragged,
    restless,
    script,
    scripted,
    weights,
)

from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.types import Objective, Outcome, RoundState, Variables
from fedjax_sim.data.batching import local_work
from fedjax_sim.data.population import Population
from fedjax_sim.engine import Engine
from fedjax_sim.engine.nonfinite import OFF, NonFinitePolicy
from fedjax_sim.models.objectives import classification

ENGINES = {
    "padded": Engine("padded", backend="vmap", devices=1),
    "vmap": Engine("queue", lanes=2, backend="vmap", devices=1, shards=4),
    "shard_map": Engine("queue", lanes=2, backend="shard_map", devices=2, shards=4),
    "pmap": Engine("queue", lanes=2, backend="pmap", devices=4, shards=4),
}
"""Those that every algorithm is tried on. The last three have the same shards and lanes, and so must give the same bits."""
QUEUES = [name for name, engine in ENGINES.items() if engine.kind == "queue"]

SIZES = (7, 3, 12, 5, 1, 9, 4, 2, 6, 8, 3, 10, 1)
N, C, ROUNDS = len(SIZES), 12, 3
PEOPLE = ragged(SIZES)
START = weights()
WORK = local_work(4, 2, shuffle=False)

COHORTS = scripted(
    [
        list(range(C)),
        [12, 4, 2, N, 0, 3, 11, N, 7, N, 9, N],
        [1, N, 6, N, 5, 2, 12, N, 10, 8, N, N],
    ],
    [[99, 99, 3, 1, *[99] * 8], [99, 1, 2, *[99] * 9], [99] * C],
)
"""Everybody has turns, rows are absent, some do part of their work. A shard has three rows for two lanes."""


OBJECTIVE = classification(Linear(restless))


def remembers(name: str) -> bool:
    """Whether the algorithm's clients keep anything between rounds."""
    return bool(jax.tree.leaves(REGISTRY[name].factory(OBJECTIVE).memory(START)))


class Rig(NamedTuple):
    """An algorithm on an engine, and how often its loss was traced."""

    machine: Machine
    traces: list[int]


@cache
def rig(
    name: str,
    engine: Engine | str,
    shuffle: bool = False,
    guard: NonFinitePolicy = OFF,
    **settings: Any,
) -> Rig:
    """The algorithm on one of :data:`ENGINES`, or on another engine."""
    traces: list[int] = []
    algorithm = REGISTRY[name].factory(counted(OBJECTIVE, traces), **settings)
    work = WORK._replace(shuffle=shuffle)
    engine = ENGINES[engine] if isinstance(engine, str) else engine
    return Rig(machine(algorithm, script(C, ROUNDS), PEOPLE, work, engine, guard), traces)


def counted(objective: Objective, traces: list[int]) -> Objective:
    """The objective; every trace of its loss leaves a mark."""

    def loss(*args):
        traces.append(1)
        return objective.loss(*args)

    return objective._replace(loss=loss)


@cache
def history(name: str, engine: Engine | str, **settings: Any) -> list[tuple[RoundState, Outcome]]:
    """What happens to everybody under :data:`COHORTS`."""
    return after(rig(name, engine, **settings), COHORTS)


def after(
    it: Rig, cohorts: Any, data: Data = PEOPLE, start: Variables = START, rounds: int = ROUNDS
):
    """Logical state and outcome after every round."""
    return play(it.machine, start, data, rounds, cohorts)


def resume(
    it: Rig, state: RoundState, cohorts: Any, data: Data = PEOPLE
) -> tuple[RoundState, Outcome]:
    """One more round with other cohorts: logical state and outcome."""
    made = it.machine
    state, outcome = made.run(made.place(state.replace(sampler=cohorts)), made.data(data))
    return made.logical(state), outcome


def always(ids: Any, most: Any = None) -> Any:
    """The same cohort in every round."""
    return scripted([ids] * ROUNDS, None if most is None else [most] * ROUNDS)


def spoiled(clients: Any, value: float = np.nan) -> Population:
    """The population, with the data of some clients replaced by nan, or what is given."""
    x = PEOPLE.x.copy()
    for client in clients:
        x[PEOPLE.offsets[client] : PEOPLE.offsets[client + 1]] = value
    return PEOPLE._replace(x=x)
