"""What the engine does on accelerators, done here: marches, convolutions as products and other
lanes give the results of the queue."""

from functools import partial

import jax
import numpy as np
import pytest
from federation import close, script
from rigs import (
    COHORTS,
    FIRST,
    OBJECTIVE,
    PEOPLE,
    REGISTRY,
    ROUNDS,
    C,
    after,
    history,
    rig,
    spoiled,
)
from test_benchmarks import small

from fedjax_sim.data.batching import evenness, local_work
from fedjax_sim.engine import Engine, make_plan
from fedjax_sim.engine.lanes.fixed_steps import FIXED_STEPS, STEPS
from fedjax_sim.engine.lanes.platform import ACCELERATOR, choose_lanes, loop_control
from fedjax_sim.engine.lanes.queue import INDEPENDENT
from fedjax_sim.engine.nonfinite import NonFinitePolicy
from fedjax_sim.engine.plan import Plan
from fedjax_sim.engine.program import make_round
from fedjax_sim.models import cnn


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(Plan, "platform", property(lambda plan: "gpu"))


@pytest.mark.parametrize(
    "engine",
    [
        Engine(lanes=7, devices=1),
        Engine(lanes=1, devices=1, shards=2),
        Engine(devices=1, shards=6),
        Engine(lanes=3, devices=4, shards=4),
    ],
    ids=["lanes", "one lane", "auto", "devices"],
)
def test_a_march_ends_where_the_padded_engine_does(engine, accelerator):
    same(history(FIRST, engine), history(FIRST, "padded"))


@pytest.mark.parametrize(
    "name",
    [FIRST, *(pytest.param(name, marks=pytest.mark.slow) for name in REGISTRY if name != FIRST)],
)
def test_every_algorithm_marches_past_those_who_are_sent_away(name, accelerator):
    drop = NonFinitePolicy("drop")
    have = after(
        rig(name, Engine(lanes=4, devices=1, shards=3), guard=drop), COHORTS, spoiled([4, 11])
    )
    same(have, after(rig(name, "padded", guard=drop), COHORTS, spoiled([4, 11])))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(have[-1][0].algorithm))


def same(have, want):
    for (state, outcome), (other, told) in zip(have, want, strict=True):
        close(state, other)
        close(outcome, told)


@pytest.mark.parametrize("steps", [2, STEPS, STEPS + 1, 2 * STEPS + 3])
def test_a_march_may_end_anywhere_in_a_clients_steps(steps, monkeypatch):
    workload = small(cohort=(0, 1, 2, 2), work=local_work(4, steps=steps))
    expected = round_of(workload, 2)
    monkeypatch.setattr(Plan, "platform", property(lambda plan: "gpu"))
    close(round_of(workload, 2), expected)


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_round_of_convolutions_as_products_is_one_of_convolutions(lanes, monkeypatch):
    workload = small(cohort=(0, 1, 2), sizes=(5, 9, 7), model=cnn(3), shape=(8, 8))
    expected, grouped = round_of(workload, lanes), convolutions(workload, lanes)
    monkeypatch.setattr(Plan, "platform", property(lambda plan: "gpu"))
    close(round_of(workload, lanes), expected)
    assert grouped > 0
    assert (convolutions(workload, lanes) == 0) is (lanes > 1)


def round_of(workload, lanes):
    program = make_round(
        workload.federated(),
        workload.sampler,
        workload.data,
        workload.local_work,
        Engine(lanes=lanes, devices=1),
    )
    state, outcome = program.run(program.init(workload.init()))
    return jax.tree.map(np.asarray, (program.logical(state).algorithm, outcome))


def convolutions(workload, lanes):
    program = make_round(
        workload.federated(),
        workload.sampler,
        workload.data,
        workload.local_work,
        Engine(lanes=lanes, devices=1),
    )
    state = program.init(workload.init())
    return program.lower(state).as_text().count("stablehlo.convolution")


def test_an_accelerator_runs_fixed_steps(accelerator):
    assert loop_control(make_plan(Engine(devices=1), 10)) is FIXED_STEPS


def test_a_cpu_checks_after_each_step():
    assert loop_control(make_plan(Engine(devices=1), 10)) is INDEPENDENT


@pytest.mark.parametrize(
    ("clients", "nbytes", "share", "lanes"),
    [
        (1000, 400, 0.25, 250),  # beside the longest client, so many are done in turn
        (1000, 400, 1.0, 1000),
        (5000, 400, 1.0, 1000),  # five turns of them
        (50, ACCELERATOR[1] // 24, 1.0, 17),  # 24 would fit, and take as many turns
        (50, 2 * ACCELERATOR[1], 1.0, 1),
        (1, 400, 0.01, 1),
    ],
)
def test_lanes_of_an_accelerator(clients, nbytes, share, lanes, accelerator):
    plan = make_plan(Engine(devices=1), 10)._replace(evenness=share)
    assert choose_lanes(plan, nbytes, clients, 10) == lanes
    assert choose_lanes(plan._replace(lanes=3), nbytes, clients, 10) == min(3, clients)


def test_lanes_of_a_cpu_do_not_hang_on_how_even_clients_are():
    plan = make_plan(Engine(devices=1), 10)
    assert (
        choose_lanes(plan, 400, 50, 10)
        == choose_lanes(plan._replace(evenness=0.01), 400, 50, 10)
        == 8
    )


def test_a_round_knows_how_even_its_clients_are():
    work = local_work(4)
    program = make_round(
        REGISTRY[FIRST].factory(OBJECTIVE), script(C, ROUNDS), PEOPLE, work, Engine(devices=1)
    )
    assert program.plan.evenness == evenness(work, PEOPLE.sizes, C) < 1


def test_how_even_clients_are():
    even = partial(evenness, local_work(10))
    assert even(np.full(100, 30), 10) == 1
    assert even(np.array([10] * 99 + [1000]), 1000) == pytest.approx(
        (99 + 100) / 100 / 100, rel=0.15
    )
    assert (
        even(np.array([10] * 99_999 + [1000]), 10) == 1
    )  # a cohort of ten hardly ever has the large one
    assert evenness(local_work(10, steps=7), np.array([1, 1000]), 2) == 1
    assert even(np.zeros(3, int), 2) == 1
    many = np.random.default_rng(0).integers(1, 500, 300_000)
    assert even(many, 50) == pytest.approx(even(many[:60_000], 50), rel=0.02)
