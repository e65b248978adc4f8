"""Samplers: who is taken, how often, and what goes wrong with them."""

from collections import Counter
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import PopulationInfo
from fedjax_sim.samplers import (
    REGISTRY,
    cyclic,
    dropout,
    full,
    poisson,
    roster,
    step_budget,
    stragglers,
    uniform,
)

N = 40
FACTS = PopulationInfo(jnp.arange(1, N + 1), 2 * jnp.arange(1, N + 1))


def population_info(clients):
    return PopulationInfo(jnp.arange(1, clients + 1), 2 * jnp.arange(1, clients + 1))


def draws(sampler, times, facts=FACTS, seed=0):
    """Rosters ``[times, C]`` of as many keys, round 0."""
    keys = jax.random.split(jax.random.key(seed), times)
    state = sampler.init(facts)
    return jax.jit(jax.vmap(lambda key: sampler.sample(key, state, facts, jnp.int32(0))[0]))(keys)


def likely(observed, expected):
    return (
        chisquare(observed, np.asarray(expected) * (np.sum(observed) / np.sum(expected))).pvalue
        > 1e-3
    )


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", REGISTRY)
def test_every_sampler_gives_rosters_as_they_are_defined(name, wrapped):
    sampler = REGISTRY[name]()
    if wrapped:
        sampler = step_budget(stragglers(dropout(sampler, 0.3), 0.5, 0.2), 40)
    got = jax.device_get(draws(sampler, 50))
    assert got.id.shape == (50, sampler.cohort(N))
    assert got.id.dtype == got.steps.dtype == got.size.dtype == got.delay.dtype == np.int32
    present = got.id < N
    assert (got.id[~present] == N).all()
    assert (got.id >= 0).all()
    assert (got.steps[~present] == 0).all()
    assert (got.size[~present] == 0).all()
    assert (got.size[present] == got.id[present] + 1).all()
    assert (got.steps[present] >= 1).all()
    assert (got.steps[present] <= 2 * got.size[present]).all()
    assert (got.delay == 0).all()
    assert (got.population == N).all()
    for row in got.id:
        assert len(set(row[row < N])) == (row < N).sum()


def test_uniform_takes_every_subset_equally_often():
    got = np.sort(np.asarray(draws(uniform(2), 6000, population_info(5)).id), axis=1)
    seen = Counter(map(tuple, got.tolist()))
    assert set(seen) == set(combinations(range(5), 2))
    assert likely(list(seen.values()), np.ones(10))


def test_uniform_takes_every_client_equally_often():
    got = np.asarray(draws(uniform(7), 3000).id)
    counts = np.bincount(got.ravel(), minlength=N)
    spread = 3000 * (7 / N) * (1 - 7 / N)  # of one client's count
    assert abs((((counts - 3000 * 7 / N) ** 2).sum() / spread) - N) < 4 * np.sqrt(2 * N)


def test_poisson_takes_a_binomial_number_of_clients_equally_often():
    sampler = poisson(6.0)
    got = np.asarray(draws(sampler, 4000).id)
    counts = (got < N).sum(1)
    cells = np.concatenate([binom.pmf(np.arange(2, 11), N, 6 / N)])
    cells = np.concatenate([[binom.cdf(1, N, 6 / N)], cells, [binom.sf(10, N, 6 / N)]])
    assert likely(np.bincount(np.clip(counts, 1, 11), minlength=12)[1:], cells)
    assert likely(np.bincount(got[got < N], minlength=N), np.ones(N))
    assert binom.sf(sampler.cohort(N), N, 6 / N) < 1e-9


def test_poisson_counts_the_draws_that_it_cuts():
    sampler = poisson(3.0, maximum=3)
    state, cut, drawn = sampler.init(FACTS), [], []
    sample = jax.jit(sampler.sample)
    for t in range(30):
        taken, state = sample(jax.random.key(t), state, FACTS, jnp.int32(t))
        cut.append(int(state["cut"]))
        drawn.append(int(taken.count))
    assert max(drawn) == 3
    assert set(np.diff([0, *cut])) == {0, 1}
    assert all(n == 3 for n, more in zip(drawn, np.diff([0, *cut]), strict=True) if more)
    sure = poisson(float(N), maximum=N)
    assert sorted(np.asarray(draws(sure, 1).id[0])) == list(range(N))


def test_full_takes_everyone_and_cyclic_the_next_ones():
    assert np.asarray(draws(full(), 1).id[0]).tolist() == list(range(N))
    assert full().cohort(N) == N
    assert turns(cyclic(3), 5, 5) == [[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1], [2, 3, 4]]


def turns(sampler, clients, rounds, state=None):
    """The cohorts of so many rounds."""
    state, seen = sampler.init(population_info(clients)) if state is None else state, []
    for t in range(rounds):
        chosen, state = sampler.sample(
            jax.random.key(t), state, population_info(clients), jnp.int32(t)
        )
        seen.append(chosen.id.tolist())
    return seen


@settings(deadline=None, derandomize=True, database=None, max_examples=15)
@given(st.integers(1, 200), st.integers(1, 200))
def test_cyclic_goes_on_where_it_stopped(clients, cohort):
    cohort = min(cohort, clients)
    flat = [i for ids in turns(cyclic(cohort), clients, 4) for i in ids]
    assert flat == [i % clients for i in range(4 * cohort)]


def test_cyclic_comes_round_in_a_large_population():
    n, c = 1_000_000, 999_999
    first, second = turns(cyclic(c), n, 2, state=jnp.int32(n - 1))
    assert first[:2] == [n - 1, 0]
    assert second[0] == (n - 1 + c) % n


# ---------------------------------------------------------------------------------- what goes wrong


def test_dropout_loses_each_client_with_its_probability_and_alone():
    got = np.asarray(draws(dropout(full(), 0.3), 3000).id) == N
    assert abs(got.mean() - 0.3) < 4 * np.sqrt(0.21 / got.size)
    assert likely(got.sum(0), np.ones(N))
    pairs = np.corrcoef(got[:, :8].T.astype(float))
    assert np.abs(pairs - np.eye(8)).max() < 4 / np.sqrt(3000)
    assert (np.asarray(draws(dropout(full(), 0.0), 2).id) < N).all()
    empty = draws(dropout(full(), 1.0), 2)
    assert (np.asarray(empty.id) == N).all()
    assert np.asarray(jax.vmap(lambda r: r.count)(empty)).tolist() == [0, 0]


def test_stragglers_do_a_part_of_their_work_and_the_others_all_of_it():
    got = jax.device_get(draws(stragglers(full(), 0.4, 0.25), 2000))
    whole = np.asarray(FACTS.steps)
    part = got.steps[:, 20:] / whole[20:]  # of clients with 42 steps and more, a step is little
    assert abs((part < 1).mean() - 0.4 * (1 - 1 / 60)) < 0.02  # a straggler may happen to finish
    assert part.min() >= 0.25
    slow = part[part < 1]
    assert abs(slow.mean() - 0.625) < 0.02
    assert (got.steps >= 1).all()
    np.testing.assert_array_equal(got.size, np.broadcast_to(FACTS.size, got.size.shape))
    np.testing.assert_array_equal(draws(stragglers(full(), 0.0), 1).steps[0], whole)


def test_a_step_budget_binds_those_who_would_do_more():
    got = np.asarray(draws(step_budget(full(), 9), 1).steps[0])
    np.testing.assert_array_equal(got, np.minimum(np.asarray(FACTS.steps), 9))


@pytest.mark.parametrize("wrap", [lambda s: dropout(s, 0.5), lambda s: stragglers(s, 0.5)])
def test_a_clients_fate_does_not_depend_on_its_place(wrap):
    def fates(order):
        sampler = full()._replace(
            sample=lambda key, state, facts, round: (roster(jnp.asarray(order), facts), state)
        )
        got = jax.device_get(draws(wrap(sampler), 20))
        return {i: np.where(got.id == N, 0, got.steps)[:, order.index(i)].tolist() for i in order}

    assert fates(list(range(N))) == fates(list(range(N))[::-1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform(0), "uniform.cohort must be positive"),
        (lambda: uniform(2.5), "uniform.cohort must be a whole number"),
        (lambda: cyclic(-1), "cyclic.cohort must be positive"),
        (lambda: uniform(N + 1).cohort(N), "lower it to 40 or less"),
        (lambda: cyclic(N + 1).cohort(N), "lower it to 40 or less"),
        (lambda: poisson(0.0), "poisson.expected must be positive"),
        (lambda: poisson(9.0, maximum=8), "must not be below the mean cohort"),
        (lambda: poisson(N + 1.0).cohort(N), "lower it to 40 or less"),
        (lambda: dropout(full(), 1.5), "dropout.rate is a share"),
        (lambda: stragglers(full(), -0.1), "stragglers.share is a share"),
        (lambda: stragglers(full(), 0.5, 0.0), "stragglers.least is a share"),
        (lambda: step_budget(full(), 0), "step_budget.steps must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(FedError, match=message):
        make()
