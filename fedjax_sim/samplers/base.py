"""Samplers: which clients take part in a round. They run inside the jitted round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_sim.core import tree
from fedjax_sim.core.errors import positive, require
from fedjax_sim.core.permutation import permute, words_of
from fedjax_sim.core.types import Array, Key, Metrics, PopulationInfo, PyTree, Roster, Sampler

Choose = Callable[[Key, int, Array], Array]
"""``(key, population size, round) -> ids``: int32[C], N for an absent row."""


def roster(ids: Array, info: PopulationInfo) -> Roster:
    """Makes a roster in which every client does its full local work without delay.

    Args:
      ids: int32[C], rows in the population; N where absent.
      info: sizes and steps, int32[N] each.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.core.types import PopulationInfo
      >>> info = PopulationInfo(size=jnp.array([8, 3]), steps=jnp.array([2, 1]))
      >>> roster = fs.samplers.roster(jnp.array([1, 2]), info)  # of 2 clients: 2 is absent
      >>> roster.steps.tolist(), roster.size.tolist(), roster.present.tolist()
      ([1, 0], [3, 0], [True, False])
    """
    population = info.size.shape[0]
    present = ids < population
    steps, size = (
        jnp.where(present, tree.take(facts, ids), 0) for facts in (info.steps, info.size)
    )
    return Roster(ids, steps, size, jnp.zeros_like(ids), jnp.int32(population))


def stateless(cohort: Callable[[int], int], choose: Choose) -> Sampler:
    """Makes a sampler without state.

    Args:
      cohort: ``population size -> C``, static.
      choose: ``(key, population size, round) -> ids``, int32[C], traced.

    Example:
      A sampler that takes client 0 in every round:

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.core.types import PopulationInfo
      >>> first = fs.samplers.stateless(
      ...     lambda population: 1, lambda key, population, round: jnp.zeros(1, jnp.int32)
      ... )
      >>> info = PopulationInfo(size=jnp.array([8, 3]), steps=jnp.array([2, 1]))
      >>> roster, state = first.sample(jax.random.key(0), first.init(info), info, 0)
      >>> roster.id.tolist(), state
      ([0], ())
    """

    def sample(
        key: Key, state: PyTree, info: PopulationInfo, round: Array
    ) -> tuple[Roster, PyTree]:
        return roster(choose(key, info.size.shape[0], round), info), state

    return Sampler(cohort, lambda info: (), sample, unobserved)


def unobserved(state: PyTree, roster: Roster, metrics: Metrics) -> PyTree:
    """The ``observe`` slot of a sampler that does not read the clients' metrics: the same state.

    >>> import fedjax_sim as fs
    >>> fs.samplers.unobserved((), None, {})
    ()
    """
    return state


def uniform(cohort: int = 10) -> Sampler:
    """Samples clients without replacement; every subset is equally likely.

    The ids are the first places of a random permutation, which costs O(C) whatever the population.

    Args:
      cohort: clients per round, C, from 1 to N.

    Raises:
      FedError: if ``cohort`` is not a positive int, or exceeds the population.

    Example:
      >>> import fedjax_sim as fs
      >>> sampler = fs.samplers.uniform(cohort=3)
      >>> sampler.cohort(100)  # rows of a roster, for a population of 100 clients
      3
    """

    def choose(key: Key, population: int, round: Array) -> Array:
        return permute(words_of(key), jnp.arange(cohort, dtype=jnp.int32), population)

    return stateless(_fixed_cohort("uniform", cohort), choose)


def full() -> Sampler:
    """Samples every client in every round.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.core.types import PopulationInfo
      >>> sampler = fs.samplers.full()
      >>> info = PopulationInfo(size=jnp.full(4, 5), steps=jnp.full(4, 1))
      >>> roster, state = sampler.sample(jax.random.key(0), sampler.init(info), info, 0)
      >>> roster.id.tolist()
      [0, 1, 2, 3]
    """
    return stateless(
        lambda population: population,
        lambda key, population, round: jnp.arange(population, dtype=jnp.int32),
    )


def cyclic(cohort: int = 10) -> Sampler:
    """Samples clients in the order of the population, and starts again after the last one.

    Args:
      cohort: clients per round, C, from 1 to N.

    Raises:
      FedError: if ``cohort`` is not a positive int, or exceeds the population.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.core.types import PopulationInfo
      >>> sampler = fs.samplers.cyclic(cohort=3)
      >>> info = PopulationInfo(size=jnp.full(4, 5), steps=jnp.full(4, 1))
      >>> state = sampler.init(info)
      >>> for t in range(2):
      ...     roster, state = sampler.sample(jax.random.key(t), state, info, t)
      ...     print(roster.id.tolist())
      [0, 1, 2]
      [3, 0, 1]
    """

    def sample(key: Key, state: Array, info: PopulationInfo, round: Array) -> tuple[Roster, Array]:
        population = info.size.shape[0]
        ids = (state + jnp.arange(cohort, dtype=jnp.int32)) % population
        return roster(ids, info), (state + cohort) % population

    return Sampler(
        _fixed_cohort("cyclic", cohort),
        lambda info: jnp.zeros((), jnp.int32),
        sample,
        unobserved,
    )


def poisson(expected: float = 10.0, maximum: int | None = None) -> Sampler:
    """Samples each client independently with probability ``expected / N``.

    The number of clients is drawn first (binomial), then that many without replacement, which has
    the same distribution as N independent draws. Rows beyond the clients drawn are absent. The
    sampler's state counts the rounds in which the draw exceeded the roster, as ``cut``.

    Args:
      expected: mean number of clients per round, above 0, at most N.
      maximum: rows of the roster, C; a larger draw is reduced to it. By default the number of rows
        that fewer than one round in 10^9 exceeds.

    Raises:
      FedError: if ``expected`` is not positive, exceeds the population, or exceeds ``maximum``.

    Example:
      >>> import fedjax_sim as fs
      >>> sampler = fs.samplers.poisson(expected=2.0)
      >>> sampler.cohort(100)  # rows of a roster, for a population of 100 clients
      16
    """
    from scipy.stats import poisson as distribution  # 0.5 s that only this sampler needs

    positive("poisson.expected", expected)
    require(
        expected <= tree.NOWHERE,
        "poisson.expected must not exceed any population",
        got=expected,
        fix="give it a value such as 10",
        setting="expected",
    )
    # The Poisson distribution's tail is heavier than the binomial's, whatever the population.
    most = maximum if maximum is not None else int(distribution.isf(1e-9, expected)) + 1
    require(
        most >= expected,
        "poisson.maximum must not be below the mean cohort",
        got=most,
        fix=f"give it a value of {int(expected) + 1} or more",
        setting="maximum",
    )

    def cohort(population: int) -> int:
        require(
            expected <= population,
            "poisson.expected must not exceed the population",
            got=expected,
            fix=f"lower it to {population} or less",
            setting="expected",
        )
        return min(most, population)

    def sample(
        key: Key, state: PyTree, info: PopulationInfo, round: Array
    ) -> tuple[Roster, PyTree]:
        population = info.size.shape[0]
        rows = jnp.arange(cohort(population), dtype=jnp.int32)
        drawn = jax.random.binomial(
            jax.random.fold_in(key, 0), population, expected / population
        ).astype(jnp.int32)
        ids = permute(words_of(jax.random.fold_in(key, 1)), rows, population)
        state = {"cut": state["cut"] + (drawn > len(rows))}
        return roster(jnp.where(rows < drawn, ids, population), info), state

    return Sampler(cohort, lambda info: {"cut": jnp.zeros((), jnp.int32)}, sample, unobserved)


def _fixed_cohort(name: str, cohort: Any) -> Callable[[int], int]:
    """Makes the ``cohort`` slot of a sampler with C = ``cohort``, after checking it.

    Args:
      name: the sampler's name, for messages.
      cohort: the setting, which must be a positive int.
    """
    require(
        isinstance(cohort, int),
        f"{name}.cohort must be a whole number",
        got=repr(cohort),
        fix="give it a value such as 10",
        setting="cohort",
    )
    positive(f"{name}.cohort", cohort)

    def check(population: int) -> int:
        require(
            cohort <= population,
            f"{name}.cohort must not exceed the population",
            got=cohort,
            fix=f"lower it to {population} or less",
            setting="cohort",
        )
        return cohort

    return check
