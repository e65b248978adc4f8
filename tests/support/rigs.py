"""Algorithms on several engines: one ragged population, scripted cohorts, every program compiled
once.

The layout theorem (every engine, backend and number of devices gives one result) is proved on one
representative of each signature, see :mod:`fedjax_sim.testing.trips`; its premise is proved for
every algorithm in ``tests/laws``. :data:`LAYOUT` lists the representatives, two more algorithms
that the commit chooses, and, as slow tests, all of them.
"""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest
from federation import Data, Machine, machine, play

from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.types import Objective, Outcome, RoundState, Variables
from fedjax_sim.engine import Engine
from fedjax_sim.engine.nonfinite import OFF, NonFinitePolicy
from fedjax_sim.testing.problem import (
    COHORTS,
    OBJECTIVE,
    PEOPLE,
    ROUNDS,
    SIZES,
    WORK,
    C,
    N,
    always,
    script,
    spoiled,
    weights,
)
from fedjax_sim.testing.program import QUICK
from fedjax_sim.testing.trips import signature

__all__ = ["COHORTS", "OBJECTIVE", "PEOPLE", "ROUNDS", "SIZES", "WORK", "C", "N", "always"]
__all__ += ["script", "spoiled"]

ENGINES = {
    "padded": Engine("padded", backend="vmap", devices=1),
    "vmap": Engine("queue", lanes=2, backend="vmap", devices=1, shards=4),
    "shard_map": Engine("queue", lanes=2, backend="shard_map", devices=2, shards=4),
    "pmap": Engine("queue", lanes=2, backend="pmap", devices=4, shards=4),
}
"""The engines. The last three have the same shards and lanes, and so must give the same bits."""
QUEUES = [name for name, engine in ENGINES.items() if engine.kind == "queue"]
START = weights()


# ------------------------------------------------------------------------------- which algorithms


def representatives() -> list[str]:
    """The first registered algorithm of each signature."""
    first: dict[Any, str] = {}
    for name, entry in REGISTRY.items():
        first.setdefault(signature(entry.factory), name)
    return list(first.values())


def rotated(names: list[str], count: int = 2) -> list[str]:
    """Some of the names, other ones after every commit.

    Args:
      names: what to choose from.
      count: how many.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{_commit()} {name}".encode()).digest())[
        :count
    ]


@cache
def _commit() -> str:
    """Name of the commit; the package's version where there is no git."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return metadata.version("fedjax-sim")
    return answer.stdout.strip()


def remembers(name: str) -> bool:
    """Whether the algorithm's clients keep anything between rounds."""
    return signature(REGISTRY[name].factory).memory


class Subject(NamedTuple):
    """An algorithm, and how its programs are compiled."""

    name: str
    quick: bool = True
    """Whether with few optimizations, in a third of the time; otherwise as users do."""


def parameters(names: list[str], more: list[Any] = []) -> list[Any]:  # noqa: B006
    """Names as parameters of a test, and as slow tests every one of ``more`` that is not among
    them.

    Args:
      names: of registered algorithms.
      more: names of the slow tests.
    """
    slow = [name for name in more if name not in names]
    return [
        *(pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names),
        *(pytest.param(n, marks=[pytest.mark.xdist_group(n), pytest.mark.slow]) for n in slow),
    ]


def _subjects() -> list[Any]:
    """Quick subjects of :data:`CHOSEN`, the first with memory as users compile it, and all others
    so as slow tests."""
    quick = [
        pytest.param(Subject(name), id=name, marks=pytest.mark.xdist_group(name)) for name in CHOSEN
    ]
    optimized = [
        pytest.param(
            Subject(name, quick=False),
            id=f"{name} optimized",
            marks=[
                pytest.mark.xdist_group(f"{name} optimized"),
                *([pytest.mark.slow] if name != FIRST else []),
            ],
        )
        for name in REGISTRY
    ]
    return quick + optimized


REPRESENTATIVES = representatives()
FIRST = next(filter(remembers, REPRESENTATIVES))
"""One algorithm with client memory stands for all where only the engine matters."""
CHOSEN = [*REPRESENTATIVES, *rotated([name for name in REGISTRY if name not in REPRESENTATIVES])]
LAYOUT = _subjects()
SEVERAL_TRIPS = [
    name for name in REPRESENTATIVES if len(signature(REGISTRY[name].factory).trips) > 1
]
"""Representatives of more than one trip, in which a client may be dropped before the end."""


# --------------------------------------------------------------------------------------- programs


class Rig(NamedTuple):
    """An algorithm on an engine, and how often its loss was traced."""

    machine: Machine
    traces: list[int]


@cache
def rig(
    subject: Subject | str,
    engine: Engine | str,
    shuffle: bool = False,
    guard: NonFinitePolicy = OFF,
    **settings: Any,
) -> Rig:
    """The algorithm on one of :data:`ENGINES`, or on another engine."""
    name, quick = (subject, True) if isinstance(subject, str) else subject
    traces: list[int] = []
    algorithm = REGISTRY[name].factory(counted(OBJECTIVE, traces), **settings)
    work = WORK._replace(shuffle=shuffle)
    where = ENGINES[engine] if isinstance(engine, str) else engine
    return Rig(
        machine(algorithm, script(C, ROUNDS), PEOPLE, work, where, guard, quick),
        traces,
    )


def counted(objective: Objective, traces: list[int]) -> Objective:
    """The objective; every trace of its loss leaves a mark."""

    def loss(*args):
        traces.append(1)
        return objective.loss(*args)

    return objective._replace(loss=loss)


@cache
def history(
    subject: Subject | str, engine: Engine | str, **settings: Any
) -> list[tuple[RoundState, Outcome]]:
    """Logical state and outcome after every round of :data:`COHORTS`."""
    return after(rig(subject, engine, **settings), COHORTS)


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


@contextmanager
def quick_compilation():
    """Within it, programs that are compiled ahead of their first call, as ``make_round``'s are,
    compile as quick rigs do."""
    original = jax.stages.Lowered.compile

    def compile(lowered, compiler_options=None, **more):
        return original(lowered, compiler_options or QUICK, **more)

    jax.stages.Lowered.compile = compile
    try:
        yield
    finally:
        jax.stages.Lowered.compile = original
