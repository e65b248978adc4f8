"""The small federated problem that algorithms are checked on: ragged clients, a linear model,
scripted cohorts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim import samplers
from fedjax_sim.core.types import Array, Key, Objective, PyTree, Roster, Sampler, Variables
from fedjax_sim.data.batching import LocalWork, local_work
from fedjax_sim.data.population import Population, Table, population, to_table
from fedjax_sim.models.objectives import classification

SIZES = (7, 3, 12, 5, 1, 9, 4, 2, 6, 8, 3, 10, 1)
"""Examples of each client."""
N = len(SIZES)
"""Clients in the population; also the id of an absent row."""
C = 12
"""Rows of a cohort."""
ROUNDS = 3
"""Rounds that the compiled program runs in one call."""
BATCH = 4
"""Examples of a batch."""
WORK = local_work(BATCH, 2, shuffle=False)
"""Two passes over batches of four, in the order of the data, so that numpy can follow them."""
ALL_STEPS = 10**6
"""A bound on the local steps that no client reaches."""
NOISE = 0.2
"""How strongly the model's forward pass depends on its key; 0 makes the model deterministic."""


class LinearModel(NamedTuple):
    """A model with nothing but the ``apply`` that objectives call."""

    apply: Any


def noisy_linear(
    params: PyTree, state: PyTree, x: Array, *, train: bool, key: Key
) -> tuple[Array, PyTree]:
    """A linear model whose inputs are scaled by a number drawn from the key, and which carries
    statistics.

    Args:
      params: ``{"w": [F, K], "b": [K]}``.
      state: ``{"seen": [F], "noise": scalar}``: a running mean of the inputs, and the strength of
        the noise.
      x: float32 ``[B, F]``.
      train: whether noise is added.
      key: what the noise is drawn from.

    Returns:
      Logits ``[B, K]`` and the new state.
    """
    draw = jax.random.key_data(key)[0].astype(jnp.float32) * 2**-32  # cheaper than a true draw
    noisy = x * (1 + state["noise"] * draw) if train else x
    seen = 0.9 * state["seen"] + 0.1 * noisy.mean(0)
    return noisy @ params["w"] + params["b"], {**state, "seen": seen}


def ragged(sizes: Sequence[int], seed: int = 0) -> Population:
    """A population of clients that hold different data.

    Args:
      sizes: examples of each client.
      seed: of the random features and labels.

    Returns:
      Features float32 ``[examples, 4]``, labels int32 of 3 classes; every client has a mean of its
      own.
    """
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(rng.normal(size=(len(sizes), 4))[owner], 1).astype(np.float32)
    labels = rng.integers(0, 3, len(owner)).astype(np.int32)
    return population(x, labels, np.concatenate([[0], np.cumsum(sizes)]))


def weights(seed: int = 0, noise: float = NOISE) -> Variables:
    """Parameters and state of :func:`noisy_linear`.

    Args:
      seed: of the random parameters.
      noise: strength of the model's noise.
    """
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3)}
    state = {"seen": jnp.zeros(4), "noise": jnp.float32(noise)}
    return Variables(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params), state)


def scripted(ids: Any, most: Any = None) -> PyTree:
    """The state of :func:`script`.

    Args:
      ids: int ``[C]`` or ``[R, C]``: the cohort of every round, in turn; N where a row is absent.
      most: like ``ids``: the most local steps that each client takes; by default all of its local
        work.
    """
    ids = np.atleast_2d(np.asarray(ids, np.int32))
    limits = np.full(ids.shape, ALL_STEPS) if most is None else np.atleast_2d(most)
    return {"ids": ids, "most": np.asarray(limits, np.int32)}


def script(cohort: int, rounds: int = 1) -> Sampler:
    """A sampler whose state lists the cohorts, so that one program serves every cohort.

    Args:
      cohort: C, rows of a cohort.
      rounds: R, cohorts in the list; they are taken in turn.

    Returns:
      A sampler that begins with the first C clients in every round; replace its state with
      :func:`scripted`.
    """

    def sample(key: Key, state: PyTree, info: Any, round: Array) -> tuple[Roster, PyTree]:
        ids, most = (jnp.take(state[name], round % rounds, axis=0) for name in ("ids", "most"))
        roster = samplers.roster(ids, info)
        return roster._replace(steps=jnp.minimum(roster.steps, most)), state

    return Sampler(
        lambda population: cohort,
        lambda info: scripted([range(cohort)] * rounds),
        sample,
        samplers.unobserved,
    )


OBJECTIVE: Objective = classification(LinearModel(noisy_linear))
PEOPLE = ragged(SIZES)

COHORTS = scripted(
    [
        list(range(C)),
        [12, 4, 2, N, 0, 3, 11, N, 7, N, 9, N],
        [1, N, 6, N, 5, 2, 12, N, 10, 8, N, N],
    ],
    [[99, 99, 3, 1, *[99] * 8], [99, 1, 2, *[99] * 9], [99] * C],
)
"""Cohorts in which every client takes part, some rows are absent, and some clients do part of
their work."""

PRESENT = [2, 3, 5, 9]
"""A few clients, without client 0, whose row an unused lane would read."""
ABSENT = [client for client in range(N) if client not in PRESENT]


def always(ids: Any, most: Any = None) -> PyTree:
    """The same cohort in every round; arguments as for :func:`scripted`."""
    return scripted([ids] * ROUNDS, None if most is None else [most] * ROUNDS)


ALONE = always([*PRESENT, *[N] * 8])
"""The few present clients; all other rows are absent."""
SINGLE = always([9, *[N] * 11])
"""One client, so that a lane stays unused and holds what the engine fills it with: client 0."""
ELSEWHERE = always([N, 5, N, 2, N, 3, N, N, N, N, N, 9])
"""The same clients in other rows."""
IDLE = always([*ABSENT[:4], *PRESENT, *ABSENT[4:8]], [0] * 4 + [99] * 4 + [0] * 4)
"""The same clients; the other rows name clients that have no steps to do."""


def spoiled(clients: Sequence[int], value: float = np.nan) -> Population:
    """The population with the features of some clients replaced by one value."""
    x = PEOPLE.x.copy()
    for client in clients:
        x[PEOPLE.offsets[client] : PEOPLE.offsets[client + 1]] = value
    return PEOPLE._replace(x=x)


class Work(NamedTuple):
    """Local work as arguments of the compiled program.

    Attributes:
      work: static, what the program is compiled for.
      table: the examples.
      cohorts: state of the scripted sampler.
    """

    work: LocalWork
    table: Table
    cohorts: PyTree


def as_arguments(settings: dict[str, Any]) -> Work:
    """Local work of a law, where possible as data and cohorts of the program that is compiled
    anyway.

    One full batch is one step of clients that hold at most one batch. Other work needs a program
    of its own.

    Args:
      settings: of :func:`fedjax_sim.data.batching.local_work`; empty for the usual work.
    """
    table = to_table(PEOPLE)
    if not settings:
        return Work(WORK, table, COHORTS)
    wanted = local_work(**settings, shuffle=False)
    one_step = {**COHORTS, "most": np.minimum(COHORTS["most"], 1)}
    if wanted.steps == 1 and wanted.batch_size == BATCH:
        return Work(WORK, table, one_step)
    full = wanted.batch_size is None or wanted.batch_size >= max(SIZES)
    if full and (wanted.steps or wanted.epochs) == 1:
        small = table._replace(size=jnp.minimum(table.size, BATCH))
        return Work(WORK, small, one_step)
    return Work(wanted, table, COHORTS)
