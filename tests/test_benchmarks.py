"""What benchmarks compare computes the same thing, and says what it promises to say.

Never how long it took.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest

from benchmarks import contest, floor, workloads
from benchmarks.measure import Timing, interleave
from benchmarks.tables import main_rows
from fedjax_sim.core.types import Variables
from fedjax_sim.data.batching import local_work
from fedjax_sim.engine import Engine
from fedjax_sim.engine.program import make_round
from fedjax_sim.models import cnn, logistic
from fedjax_sim.models.objectives import classification


def small(cohort=(2,), sizes=(5, 9, 23), model=None, work=None, shape=(6,)):
    """A workload of a few clients."""
    data = workloads.images(np.random.default_rng(0), np.array(sizes), shape, 3)
    network = model or logistic(3)
    init = lambda: Variables(*network.init(jax.random.key(0), data.x[:1]))  # noqa: E731
    return workloads.Workload(
        "X",
        "small",
        "logistic",
        data,
        network,
        classification(network),
        init,
        work or local_work(4),
        np.array(cohort, np.int32),
        0.1,
    )


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), a, b)


def test_the_floor_takes_the_steps_of_a_round():
    workload = small(work=local_work(4, shuffle=False))
    run, steps = floor.scan_floor(workload, canonically=True)
    assert steps == 6
    program = make_round(
        workload.federated(),
        workload.sampler,
        workload.data,
        workload.local_work,
        Engine(devices=1),
    )
    state, _ = program.run(program.init(workload.init()))
    close(run(), workload.federated().variables(program.logical(state).algorithm))


def test_the_floor_sees_every_example_of_the_cohort_once():
    workload = small(cohort=(2, 0))
    drawn = floor.schedule(workload)
    rows = np.asarray(drawn.rows)[np.asarray(drawn.mask)]
    assert sorted(rows) == [*range(5), *range(14, 37)]
    assert list(rows) != sorted(rows)


def test_the_vmapped_floor_is_a_round_of_one_step_each():
    workload = small(cohort=(0, 1, 2), work=local_work(None))
    equal = workload._replace(
        data=workloads.images(np.random.default_rng(0), np.full(3, 7), (6,), 3)
    )
    program = make_round(
        equal.federated(), equal.sampler, equal.data, equal.local_work, Engine(devices=1)
    )
    state, _ = program.run(program.init(equal.init()))
    close(floor.vmap_floor(equal)(), equal.federated().variables(program.logical(state).algorithm))


def test_a_line_says_what_it_promises():
    line = contest.time_workload(small(), devices=2, lanes="auto", repeats=2)
    assert {
        "workload",
        "says",
        "steps",
        "devices",
        "lanes",
        "floor_s",
        "one_device_s",
        "ours_s",
        "ratio",
        "spread",
        "cores",
    } <= set(line)
    assert line["steps"] == 6
    assert isinstance(line["lanes"], int)
    assert "trap_s" not in line
    assert "vmap_s" not in line
    columns, (row,) = main_rows([line])
    assert len(columns) == len(row)


def test_convolutions_are_measured_in_their_trap_too():
    workload = small(cohort=(0,), model=cnn(3), shape=(8, 8))
    assert contest.convolves(workload)
    assert contest.trap(workload, 2).median > 0
    assert not contest.convolves(small())


def test_contenders_take_turns():
    turns = []
    timings = interleave({name: lambda name=name: turns.append(name) for name in "AB"}, repeats=3)
    assert turns == [*"AB", *"AB", *"AB", *"AB"]
    assert len(timings["A"].taken) == 3


def test_ratios_are_within_a_turn():
    slow_once = Timing((1.0, 10.0, 1.0))
    assert slow_once.over(Timing((2.0, 20.0, 2.0))) == 0.5
    assert slow_once.median == 1
    assert (slow_once.low, slow_once.high) == (1, 10)


@pytest.mark.parametrize("name", ["W3", "W4", "W5"])
def test_workloads_are_the_same_every_time(name):
    one, other = workloads.WORKLOADS[name](), workloads.WORKLOADS[name]()
    np.testing.assert_array_equal(one.cohort, other.cohort)
    np.testing.assert_array_equal(one.data.offsets, other.data.offsets)
    np.testing.assert_array_equal(one.data.x[:5], other.data.x[:5])
