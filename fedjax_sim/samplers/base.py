"""Samplers: who takes part in a round. All of them run inside the jitted round."""

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


def roster(ids: Array, info: PopulationInfo) -> Roster:
    """Everyone of ``ids`` (int32[C], N where absent) on time and doing their full work."""
    population = info.size.shape[0]
    present = ids < population
    steps, size = (
        jnp.where(present, tree.take(facts, ids), 0) for facts in (info.steps, info.size)
    )
    return Roster(ids, steps, size, jnp.zeros_like(ids), jnp.int32(population))


def stateless(cohort: Callable[[int], int], choose: Choose) -> Sampler:
    """A sampler that remembers nothing: ``choose(key, population, round) -> ids``."""

    def sample(key: Key, state: PyTree, info: PopulationInfo, round: Array) -> tuple[Roster, PyTree]:
        return roster(choose(key, info.size.shape[0], round), info), state

    return Sampler(cohort, lambda info: (), sample, unobserved)


def unobserved(state: PyTree, roster: Roster, metrics: Metrics) -> PyTree:
    """The ``observe`` slot of a sampler that does not look at results."""
    return state


def uniform(cohort: int = 10) -> Sampler:
    """``cohort`` clients without replacement, every subset equally likely: the first places of a random permutation, O(cohort)."""

    def choose(key: Key, population: int, round: Array) -> Array:
        return permute(words_of(key), jnp.arange(cohort, dtype=jnp.int32), population)

    return stateless(_at_most_everyone("uniform", cohort), choose)


def full() -> Sampler:
    """Every client in every round."""
    return stateless(
        lambda population: population,
        lambda key, population, round: jnp.arange(population, dtype=jnp.int32),
    )


def cyclic(cohort: int = 10) -> Sampler:
    """``cohort`` clients in turn, round and round in the order of the population."""

    def sample(key: Key, state: Array, info: PopulationInfo, round: Array) -> tuple[Roster, Array]:
        population = info.size.shape[0]
        ids = (state + jnp.arange(cohort, dtype=jnp.int32)) % population
        return roster(ids, info), (state + cohort) % population

    return Sampler(
        _at_most_everyone("cyclic", cohort),
        lambda info: jnp.zeros((), jnp.int32),
        sample,
        unobserved,
    )


def poisson(expected: float = 10.0, maximum: int | None = None) -> Sampler:
    """Each client independently with probability ``expected / N``; rows beyond those drawn are absent.

    The number of clients is drawn first (binomial), then that many without replacement: the same law as N coin flips.

    Args:
      expected: mean cohort, at most N.
      maximum: rows in the roster; a larger draw is cut to it and counted in the sampler's state. By default so many that fewer
        than one round in 10^9 is cut.
    """
    from scipy.stats import poisson as law  # half a second that only this sampler needs

    positive("poisson.expected", expected)
    require(
        expected <= tree.NOWHERE,
        "poisson.expected must not exceed any population",
        got=expected,
        fix="give it a value such as 10",
    )
    # The Poisson law's tail is heavier than the binomial's, whatever the population.
    most = maximum if maximum is not None else int(law.isf(1e-9, expected)) + 1
    require(
        most >= expected,
        "poisson.maximum must not be below the mean cohort",
        got=most,
        fix=f"give it a value of {int(expected) + 1} or more",
    )

    def cohort(population: int) -> int:
        require(
            expected <= population,
            "poisson.expected must not exceed the population",
            got=expected,
            fix=f"lower it to {population} or less",
        )
        return min(most, population)

    def sample(key: Key, state: PyTree, info: PopulationInfo, round: Array) -> tuple[Roster, PyTree]:
        population = info.size.shape[0]
        rows = jnp.arange(cohort(population), dtype=jnp.int32)
        drawn = jax.random.binomial(
            jax.random.fold_in(key, 0), population, expected / population
        ).astype(jnp.int32)
        ids = permute(words_of(jax.random.fold_in(key, 1)), rows, population)
        cut = {"cut": state["cut"] + (drawn > len(rows))}
        return roster(jnp.where(rows < drawn, ids, population), info), cut

    return Sampler(cohort, lambda info: {"cut": jnp.zeros((), jnp.int32)}, sample, unobserved)


def _at_most_everyone(name: str, cohort: Any) -> Callable[[int], int]:
    require(
        isinstance(cohort, int),
        f"{name}.cohort must be a whole number",
        got=repr(cohort),
        fix="give it a value such as 10",
    )
    positive(f"{name}.cohort", cohort)

    def check(population: int) -> int:
        require(
            cohort <= population,
            f"{name}.cohort must not exceed the population",
            got=cohort,
            fix=f"lower it to {population} or less",
        )
        return cohort

    return check
