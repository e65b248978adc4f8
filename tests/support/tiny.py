"""A tiny program with the interface of the engine's, for tests of what stands around it."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_sim.core.types import Mean, Outcome, RoundState, Variables


class Program(NamedTuple):
    init: Any
    run: Any
    logical: Any
    place: Any
    calls: list
    """Lengths of the calls of ``run``."""
    host_memory: Any = None


def variables() -> Variables:
    params = {
        "dense": {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.ones(4, jnp.bfloat16)}
    }
    return Variables(params, {"mean": jnp.zeros(4)})


def first(variables: Variables, seed: int = 0, clients: int = 5) -> RoundState:
    params = {"kernel": variables.params["dense"]["kernel"]}
    return RoundState(
        round=jnp.int32(0),
        seed=jnp.uint32(seed),
        algorithm=(
            variables,
            optax.adam(0.1).init(params),
            {"flag": jnp.array(True), "half": jnp.ones(2, jnp.float16)},
        ),
        memory={"c": jnp.zeros((clients, 3), jnp.float32), "none": jnp.zeros((clients, 0))},
        sampler=(jnp.arange(clients, dtype=jnp.int32), ()),
    )


def once(state: RoundState) -> tuple[RoundState, Outcome]:
    """A round that moves every part of the state, and draws from ``(seed, round)`` alone."""
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(state.seed), state.round), (3,))
    who = state.round % state.memory["c"].shape[0]
    model, adam, extra = state.algorithm
    params = jax.tree.map(
        lambda leaf: (leaf * 0.9 + jnp.sum(noise).astype(leaf.dtype)).astype(leaf.dtype),
        model.params,
    )
    adam = jax.tree.map(lambda leaf: leaf + 1, adam)
    after = RoundState(
        round=state.round + 1,
        seed=state.seed,
        algorithm=(model._replace(params=params), adam, extra),
        memory={**state.memory, "c": state.memory["c"].at[who].add(noise)},
        sampler=(jnp.roll(state.sampler[0], 1), ()),
    )
    weight = jnp.float32(4)
    clients = {"loss": Mean(jnp.ones(2), jnp.ones(2))}
    metrics = {
        "loss": Mean(weight / (state.round + 1), weight),
        "rare": Mean(weight, jnp.where(state.round % 2 == 0, weight, 0)),
        "cohort": jnp.int32(4),
        "histogram": jnp.zeros(3),
    }
    return after, Outcome(metrics, clients)


@partial(jax.jit, static_argnums=1, donate_argnums=0)
def scan(state: RoundState, rounds: int) -> tuple[RoundState, Outcome]:
    return jax.lax.scan(lambda state, _: once(state), state, length=rounds)


def program() -> Program:
    calls: list[int] = []

    def run(state: RoundState, rounds: int = 1) -> tuple[RoundState, Outcome]:
        calls.append(rounds)
        return scan(state, rounds)

    def place(state: RoundState) -> RoundState:
        return jax.tree.map(jnp.array, state)

    return Program(
        lambda variables, seed=0: place(first(variables, seed)),
        run,
        lambda s: jax.tree.map(np.asarray, s),
        place,
        calls,
    )


def after(rounds: int) -> RoundState:
    """The logical state of seed 0 after so many rounds, on the host and the caller's own."""
    return jax.tree.map(np.array, _after(rounds))


@cache
def _after(rounds: int) -> RoundState:
    made = program()
    if rounds == 0:
        return made.logical(made.init(variables()))
    return made.logical(made.run(made.place(_after(rounds - 1)))[0])
