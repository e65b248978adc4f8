"""Every check of :mod:`fedjax_sim.testing` on every registered algorithm; one program is compiled
for each.

The checks of one algorithm run in one worker, which compiles its program once.
"""

import numpy as np
import pytest
from federation import EVERY, Linear, close, linear, machine, play

from fedjax_sim import samplers, testing
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.data.batching import local_work
from fedjax_sim.models.objectives import classification
from fedjax_sim.testing.problem import PEOPLE, weights

ALL = pytest.mark.parametrize("name", EVERY)
RESTRICTED = [param for param in EVERY if REGISTRY[param.values[0]].law.local_work]


@pytest.mark.parametrize("check", testing.PREMISES.values(), ids=testing.PREMISES)
@ALL
def test_the_premise_of_the_layout_theorem_holds(name, check):
    check(REGISTRY[name].factory)


@pytest.mark.parametrize("check", testing.RUNS.values(), ids=testing.RUNS)
@ALL
def test_runs_with_other_cohorts_data_seeds_and_starts(name, check):
    check(REGISTRY[name].factory)


@pytest.mark.parametrize("check", testing.LAWS.values(), ids=testing.LAWS)
@ALL
def test_the_law_holds_and_can_fail(name, check):
    check(REGISTRY[name].factory, REGISTRY[name].law)


@ALL
def test_the_law_is_on_the_card(name):
    for line in ("Memory:", "Upload:", "Server:", "Law:", "Reference:"):
        assert line in REGISTRY[name].card, f"{name}: the card has no {line!r}"


@pytest.mark.slow
@pytest.mark.parametrize("name", RESTRICTED)
def test_the_law_holds_in_programs_of_its_own_work(name):
    """The check above turns one full batch into one step of clients that hold a single batch."""
    law = REGISTRY[name].law
    objective = classification(Linear(linear))
    start = weights()._replace(state=())
    work = local_work(**law.local_work, shuffle=False)
    runs = []
    for who, settings in ((name, law.when), (law.equals, law.given)):
        algorithm = REGISTRY[who].factory(objective, **settings)
        made = machine(algorithm, samplers.cyclic(3), PEOPLE, work, quick=False)
        history = play(made, start, PEOPLE, law.rounds)
        runs.append([algorithm.variables(state.algorithm) for state, _ in history])
    for have, want in zip(*runs, strict=True):
        close(have, want, law.tolerance)
    assert np.abs(runs[0][-1].params["w"] - start.params["w"]).max() > 1e-2
