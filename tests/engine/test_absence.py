"""On every engine: absent clients change nothing, and the order of the cohort does not matter, bit
for bit.

Here for one algorithm of each signature; for every algorithm on one engine in
``tests/laws/test_laws.py``.
"""

import jax
import numpy as np
import pytest
from federation import close
from rigs import (
    COHORTS,
    ENGINES,
    LAYOUT,
    PEOPLE,
    SIZES,
    C,
    N,
    after,
    always,
    history,
    resume,
    rig,
    spoiled,
)

from fedjax_sim.persistence.manifest import state_hash

ALL = pytest.mark.parametrize("subject", LAYOUT)
EVERYWHERE = pytest.mark.parametrize("engine", ENGINES)

HERE = [2, 3, 5, 9]  # without client 0, whom a lane that was never used would read
AWAY = [i for i in range(N) if i not in HERE]
ALONE = always([*HERE, *[N] * 8])
IDLE = always(
    [*AWAY[:4], *HERE, *AWAY[4:8]], [0] * 4 + [99] * 4 + [0] * 4
)  # the others are named, and have nothing to do


def digest(state):
    """The bits of all that a run leaves, but for whom the script names."""
    return state_hash(state.replace(sampler=()))


def digests(states):
    return [digest(state) for state, _ in states]


def rows(memory, clients):
    return jax.tree.map(lambda leaf: leaf[np.asarray(clients)], memory)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@EVERYWHERE
@ALL
def test_the_order_of_the_cohort_does_not_matter(subject, engine):
    turn = np.random.default_rng(0).permutation(C)
    turned = jax.tree.map(lambda leaf: leaf[:, turn], COHORTS)
    assert (turned["ids"] != COHORTS["ids"]).any(1).all()
    have, want = after(rig(subject, engine), turned), history(subject, engine)
    assert digests(have) == digests(want)
    for (_, outcome), (_, told) in zip(have, want, strict=True):
        close(outcome.clients, jax.tree.map(lambda leaf: leaf[turn], told.clients), 0)


@pytest.mark.parametrize(
    ("cohorts", "data"),
    [
        (always([N, 5, N, 2, N, 3, N, N, N, N, N, 9]), PEOPLE),
        (IDLE, PEOPLE),
        (ALONE, spoiled(AWAY)),
        (ALONE, spoiled(AWAY, np.inf)),
        (IDLE, spoiled(AWAY)),
    ],
    ids=["elsewhere", "no steps", "nan", "inf", "nan and no steps"],
)
@EVERYWHERE
@ALL
def test_absent_rows_and_absent_clients_data_change_nothing(subject, engine, cohorts, data):
    it = rig(subject, engine)
    have, want = after(it, cohorts, data), after(it, ALONE)
    assert digests(have) == digests(want)
    assert finite(have)
    for (_, outcome), (_, told) in zip(have, want, strict=True):
        close(outcome.metrics, told.metrics, 1e-6)
        assert outcome.metrics["cohort"] == len(HERE)


@EVERYWHERE
@ALL
def test_what_absent_clients_remember_stays_as_it_is(subject, engine):
    before = history(subject, engine)[-1][0]
    state, _ = resume(rig(subject, engine), before, ALONE)
    close(rows(state.memory, AWAY), rows(before.memory, AWAY), 0)
    for (path, leaf), old in zip(
        jax.tree_util.tree_leaves_with_path(state.memory),
        jax.tree.leaves(before.memory),
        strict=True,
    ):
        assert len(leaf) == len(SIZES)
        if "noise" not in jax.tree_util.keystr(path):  # a constant of the model
            assert all((leaf[i] != old[i]).any() for i in HERE)


@EVERYWHERE
@ALL
def test_an_empty_cohort_leaves_everything_as_it_is(subject, engine):
    before = history(subject, engine)[-1][0]
    for nobody in (always([N] * C), always(range(C), [0] * C)):
        state, outcome = resume(rig(subject, engine), before, nobody)
        close(
            (state.algorithm, state.memory, state.seed),
            (before.algorithm, before.memory, before.seed),
            0,
        )
        assert state.round == before.round + 1
        assert finite(outcome)
        assert outcome.metrics["cohort"] == 0
        assert all(metric.weight == 0 for key, metric in outcome.metrics.items() if key != "cohort")


@EVERYWHERE
@ALL
def test_rounds_and_seeds_draw_other_numbers(subject, engine):
    """Otherwise the tests above could not see a key that is derived from a place."""
    it = rig(subject, engine)
    zero = history(subject, engine)[0][0]
    again = (
        zero.replace(round=np.int32(0)),
        zero.replace(round=np.int32(3)),
        zero.replace(seed=np.uint32(9)),
    )
    models = [jax.tree.leaves(resume(it, state, COHORTS)[0].algorithm) for state in again]
    for other in models[1:]:
        assert any((a != b).any() for a, b in zip(models[0], other, strict=True))
