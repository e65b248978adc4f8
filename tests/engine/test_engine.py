"""The layout theorem: queue and padded, lanes, shards, backends and devices give one result.

Proved for one algorithm of each signature; its premise is proved for every algorithm in
``tests/laws/test_laws.py``.
"""

import inspect

import jax
import numpy as np
import pytest
from federation import close
from rigs import (
    COHORTS,
    ENGINES,
    FIRST,
    LAYOUT,
    OBJECTIVE,
    PEOPLE,
    QUEUES,
    REPRESENTATIVES,
    ROUNDS,
    SIZES,
    START,
    WORK,
    C,
    N,
    history,
    parameters,
    quick_compilation,
    remembers,
    rig,
    script,
)

from fedjax_sim.aggregators import chain, clip, median
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.engine import Engine
from fedjax_sim.engine.plan import make_plan
from fedjax_sim.engine.program import make_round
from fedjax_sim.persistence.manifest import state_hash

ALL = pytest.mark.parametrize("subject", LAYOUT)


def takes_an_aggregator(name):
    return "aggregator" in inspect.signature(REGISTRY[name].factory).parameters


OPEN = next(name for name in REGISTRY if remembers(name) and takes_an_aggregator(name))
"""One that takes any aggregator besides."""

OTHERS = {
    "one lane": Engine("queue", lanes=1, devices=1),
    "lanes do not divide the cohort": Engine("queue", lanes=5, devices=1),
    "more lanes than clients": Engine("queue", lanes=50, devices=1),
    "one for every platform": Engine(),
    "two lanes on two devices": Engine("queue", lanes=2, backend="pmap", devices=2),
    "more shards than clients": Engine("queue", lanes=2, backend="shard_map", devices=4, shards=16),
    "padded on two devices": Engine("padded", backend="shard_map", devices=2),
}


def same(have, want):
    """States and reports of both after every round, up to the order of additions."""
    for (state, outcome), (other, told) in zip(have, want, strict=True):
        close(state, other)
        close(outcome, told)


@pytest.mark.parametrize("engine", QUEUES)
@ALL
def test_the_queue_on_every_backend_is_the_padded_engine(subject, engine):
    same(history(subject, engine), history(subject, "padded"))


@pytest.mark.parametrize("engine", QUEUES[1:])
@ALL
def test_fixed_shards_give_the_same_bits_on_any_backend_and_number_of_devices(subject, engine):
    hashes = [
        [state_hash(state) for state, _ in history(subject, where)] for where in (QUEUES[0], engine)
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == ROUNDS


@pytest.mark.parametrize("name", parameters(REPRESENTATIVES, list(REGISTRY)))
def test_examples_from_the_host_give_the_same_bits(name):
    program = make_round(
        REGISTRY[name].factory(OBJECTIVE),
        script(C, ROUNDS),
        PEOPLE,
        WORK,
        ENGINES["vmap"]._replace(data="host"),
    )
    state = program.place(program.logical(program.init(START)).replace(sampler=COHORTS))
    for expected, outcome_expected in history(name, "vmap"):
        with quick_compilation():
            state, outcome = program.run(state)
        close(program.logical(state), expected, 0)
        close(jax.tree.map(lambda leaf: np.asarray(leaf)[0], outcome), outcome_expected, 0)


@pytest.mark.xdist_group(FIRST)
@pytest.mark.parametrize("engine", OTHERS.values(), ids=OTHERS)
def test_any_lanes_shards_and_devices_are_the_padded_engine(engine):
    same(history(FIRST, engine), history(FIRST, "padded"))


@pytest.mark.xdist_group(FIRST)
def test_the_order_of_the_examples_is_the_clients_own_on_every_engine():
    same(history(FIRST, "pmap", shuffle=True), history(FIRST, "padded", shuffle=True))
    for (state, _), (other, _) in zip(
        history(FIRST, "padded", shuffle=True), history(FIRST, "padded"), strict=True
    ):
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.algorithm, other.algorithm)
        assert max(jax.tree.leaves(moved)) > 1e-3


def watched(rule):
    """The rule; reports what it was shown."""

    def finalize(key, state, upload, stats):
        result, state, metrics = rule.finalize(key, state, upload, stats)
        return result, state, {**metrics, "sizes": upload.weight}

    return rule._replace(finalize=finalize)


ROBUST = chain(clip(0.3), watched(median()))


@pytest.mark.xdist_group(OPEN)
@pytest.mark.parametrize("engine", QUEUES)
def test_a_rule_that_sees_all_uploads_at_once_does_so_on_every_engine(engine):
    have, want = (history(OPEN, where, aggregator=ROBUST) for where in (engine, "padded"))
    same(have, want)
    if engine != QUEUES[0]:
        assert state_hash(have[-1][0]) == state_hash(
            history(OPEN, QUEUES[0], aggregator=ROBUST)[-1][0]
        )
    for t, (_, outcome) in enumerate(have):
        clipped = outcome.metrics["clipped"]
        assert clipped.weight == (COHORTS["ids"][t] < N).sum()
        assert 0 < clipped.total <= clipped.weight
        ids = COHORTS["ids"][t]
        assert (
            outcome.metrics["sizes"].tolist()
            == np.where(ids < N, np.append(SIZES, 0)[ids], 0).tolist()
        )  # as in the roster


@pytest.mark.parametrize("engine", ENGINES)
@ALL
def test_a_round_reports_its_cohort_in_the_order_of_the_roster(subject, engine):
    for t, (state, outcome) in enumerate(history(subject, engine)):
        present = COHORTS["ids"][t] < N
        for metric in outcome.clients.values():
            assert (metric.weight > 0).tolist() == present.tolist()
        for key, metric in outcome.clients.items():
            np.testing.assert_allclose(outcome.metrics[key].total, metric.total.sum(), rtol=1e-5)
            assert outcome.metrics[key].weight == metric.weight.sum()
        assert outcome.metrics["cohort"] == present.sum()
        assert state.round == t + 1
    everyone = PEOPLE.sizes[COHORTS["ids"][-1][present]]  # in the last round nobody is held back
    weight = outcome.clients["loss"].weight[present]
    assert (weight / everyone).tolist() == [weight[0] / everyone[0]] * len(everyone)


@pytest.mark.parametrize("engine", ENGINES)
@ALL
def test_a_round_is_traced_once_and_a_state_that_went_through_the_host_goes_on_as_it_was(
    subject, engine
):
    it = rig(subject, engine)
    made, table = it.machine, it.machine.data(PEOPLE)
    whole = history(subject, engine)
    before = len(it.traces)
    state = made.place(whole[0][0])
    for t in range(1, ROUNDS):
        old, (state, outcome) = state, made.run(state, table)
        assert all(
            leaf.is_deleted() for leaf in jax.tree.leaves((old.algorithm, old.memory, old.round))
        )
        assert state_hash(made.logical(state)) == state_hash(whole[t][0])
    assert before == len(it.traces) > 0
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(START))
    assert all(
        leaf.dtype == want.dtype
        for leaf, want in zip(jax.tree.leaves(state), jax.tree.leaves(whole[0][0]), strict=True)
    )
    assert outcome.clients["loss"].total.shape == (C,)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (Engine(kind="quue"), "did you mean 'queue'"),
        (Engine(backend="pnap"), "did you mean 'pmap'"),
        (Engine(lanes=0), "engine.lanes must be 'auto' or a positive number"),
        (Engine(devices=5), "5 of 4"),
        (Engine(devices=0), "0 of 4"),
        (Engine(backend="vmap", devices=2), "backend 'vmap' runs on one device"),
        (Engine(devices=4, shards=6), "6 shards on 4 devices"),
    ],
)
def test_an_engine_that_the_machine_does_not_have_is_refused(engine, said):
    with pytest.raises(ValueError, match=said):
        make_plan(engine, 10)


def test_an_engine_chooses_for_itself():
    assert make_plan(Engine(), 10)[2:6] == ("shard_map", tuple(jax.devices()), 4, False)
    assert make_plan(Engine(devices=1), 10).backend == "vmap"
    assert make_plan(Engine(backend="vmap"), 10).devices == tuple(jax.devices()[:1])
    fixed = make_plan(Engine(devices=2, shards=8), 10)
    assert (fixed.shards, fixed.shards_per_device, fixed.ordered, fixed.platform) == (
        8,
        4,
        True,
        "cpu",
    )
