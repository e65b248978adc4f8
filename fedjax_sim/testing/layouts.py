"""The layout theorem itself, on programs of several engines: it is run where a signature is new."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim.engine import Engine, make_plan
from fedjax_sim.engine.devices.backends import make_backend
from fedjax_sim.engine.round import initial_state, make_spmd, repeat
from fedjax_sim.testing import problem
from fedjax_sim.testing.failures import expect_close
from fedjax_sim.testing.problem import COHORTS, PEOPLE, ROUNDS, WORK, C
from fedjax_sim.testing.program import QUICK, Factory, History, make, to_table

REFERENCE = Engine("padded", backend="vmap", devices=1)
"""The engine that others are compared with."""
SHARDS = 4
"""A fixed number of shards gives the same bits on any number of devices that divides it."""


def engines() -> dict[str, Engine]:
    """Queues of one layout of shards and lanes on every backend that this machine has devices
    for."""
    several = [count for count in (2, 4) if count <= len(jax.devices())]
    places: list[tuple[Any, int]] = [
        ("vmap", 1),
        *(("shard_map", count) for count in several),
        *(("pmap", count) for count in several),
    ]
    return {
        f"{backend} on {count}": Engine(
            "queue", lanes=2, backend=backend, devices=count, shards=SHARDS
        )
        for backend, count in places
    }


def check_layouts(factory: Factory) -> None:
    """Checks that every engine gives one result: the queue equals the padded engine, and backends
    give the same bits.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.

    Raises:
      CheckError: for the first difference.
    """
    look = "functions of the algorithm that see more than one client, the message and the key"
    padded = run_on(factory, REFERENCE)
    first: History | None = None
    for name, engine in engines().items():
        have = run_on(factory, engine)
        expect_close(
            have, padded, 1e-5, f"check_layouts: {name} equals the padded engine", look=look
        )
        first = first or have
        check = f"check_layouts: {name} has the bits of one device"
        expect_close(have.states, first.states, 0, check, look=look)


def run_on(factory: Factory, engine: Engine) -> History:
    """Runs the usual cohorts on an engine, in a program of its own.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.
      engine: where it runs.
    """
    plan = make_plan(engine, int(PEOPLE.sizes.max()))
    backend = make_backend(plan)
    sampler = problem.script(C, ROUNDS)
    algorithm = make(factory)
    spmd = make_spmd(algorithm, sampler, plan, WORK)
    advance = backend.advance(lambda state, table: repeat(spmd, 1, state, table))
    sizes = jnp.asarray(PEOPLE.sizes, jnp.int32)
    state = initial_state(algorithm, sampler, sizes, WORK, problem.weights(), 0)
    state = backend.place(replace(state, sampler=COHORTS))
    table = backend.share(to_table(PEOPLE))
    compiled = advance.lower(state, table).compile(compiler_options=QUICK)
    states, outcomes = [], []
    for _ in range(ROUNDS):
        state, outcome = compiled(*advance.arguments(state, table))
        states.append(backend.logical(state, PEOPLE.clients))
        outcomes.append(jax.tree.map(lambda leaf: np.asarray(leaf)[0], outcome))
    return History(tuple(states), tuple(outcomes))
