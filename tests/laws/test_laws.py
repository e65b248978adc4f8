"""The laws that algorithms ship: with these settings one is another, and what is conserved stays so."""

from functools import cache

import jax
import numpy as np
import pytest
from federation import EVERY, Linear, close, linear, machine, play, ragged, weights

from fedjax_sim import samplers
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.data.batching import local_work
from fedjax_sim.models.objectives import classification

DATA = ragged((7, 3, 12, 5, 1))
START = weights()._replace(state=())
OBJECTIVE = classification(Linear(linear))
USUAL = {"batch_size": 4, "epochs": 2}
HELD = [name for name, entry in REGISTRY.items() if entry.law.conserved]


@cache
def models(name, settings, work, rounds):
    """The global model after every round, under partial participation."""
    algorithm = REGISTRY[name].factory(OBJECTIVE, **dict(settings))
    made = machine(algorithm, samplers.cyclic(3), DATA, local_work(**dict(work), shuffle=False))
    return [algorithm.variables(state.algorithm) for state, _ in play(made, START, DATA, rounds)]


def items(settings):
    return tuple(settings.items())


@pytest.mark.parametrize("name", EVERY)
def test_an_algorithm_with_the_settings_of_its_law_is_the_other_one(name):
    law = REGISTRY[name].law
    work = items(law.local_work or USUAL)
    ours, other = (
        models(*what, work, law.rounds)
        for what in [(name, items(law.when)), (law.equals, items(law.given))]
    )
    assert name != law.equals
    for a, b in zip(ours, other, strict=True):
        close(a, b, law.tolerance)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), ours[-1].params, START.params)
    assert min(jax.tree.leaves(moved)) > 1e-2


@pytest.mark.parametrize("name", HELD)
def test_what_a_law_conserves_stays_so_under_partial_participation(name):
    algorithm = REGISTRY[name].factory(OBJECTIVE)
    sampler = samplers.dropout(samplers.uniform(4), 0.3)
    made = machine(algorithm, sampler, DATA, local_work(**USUAL, shuffle=False))
    cohorts = set()
    for state, outcome in play(made, START, DATA, 6):
        a, b = REGISTRY[name].law.conserved(state.algorithm, state.memory)
        close(jax.tree.map(np.asarray, a), jax.tree.map(np.asarray, b), 1e-5)
        assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(a)) > 1e-3
        cohorts.add(int(outcome.metrics["cohort"]))
    assert len(cohorts) > 1
    assert max(cohorts) < DATA.clients


@pytest.mark.parametrize("name", EVERY)
def test_a_law_is_told_in_words_and_on_the_card(name):
    entry = REGISTRY[name]
    assert entry.law.says
    assert entry.law.equals in REGISTRY
    for line in ("Memory:", "Upload:", "Server:", "Law:", "Reference:"):
        assert line in entry.card, f"{name}: the card has no {line!r}"
