"""Rounds that do not fit: fewer lanes, the same numbers, and a sentence where nothing is left to
give up.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rigs import OBJECTIVE, PEOPLE, START, WORK, C

from fedjax_sim import samplers
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.errors import FedError
from fedjax_sim.engine import Engine, make_plan
from fedjax_sim.engine.devices.backends import Compiled
from fedjax_sim.engine.devices.memory_limit import FewerLanes, footprint, make_adaptive
from fedjax_sim.engine.program import make_round
from fedjax_sim.simulation.simulate import simulate

PLAN = make_plan(Engine(lanes=8, devices=1), 12)
MESSAGE = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 7 bytes.\nmore lines"


def program(**engine):
    algorithm = next(iter(REGISTRY.values())).factory(OBJECTIVE)
    return make_round(algorithm, samplers.uniform(C), PEOPLE, WORK, Engine(devices=1, **engine))


def needs(lanes):
    made = program(lanes=lanes)
    return footprint(made.lower(made.init(START)).compile().memory_analysis())


def refusing(times, consuming=False):
    """A program that takes ``10 - halvings`` bytes and, so many times, ends for want of memory.

    It tells the lanes it was built with.
    """
    left = [times]

    def build(plan, rounds):
        def run(state, table):
            if left[0] > 0:
                left[0] -= 1
                if consuming:
                    jax.tree.map(lambda leaf: leaf.delete(), state)
                raise jax.errors.JaxRuntimeError(MESSAGE)
            return state, (plan.halvings, rounds)

        sizes = {
            f"{name}_size_in_bytes": 0 for name in ("argument", "output", "alias", "generated_code")
        }
        stats = SimpleNamespace(**sizes, temp_size_in_bytes=max(10 - plan.halvings, 7))
        made = SimpleNamespace(compile=lambda: _Callable(run, stats))
        return Compiled(run, lambda state, table: made, lambda state, table: (state, table))

    return build


class _Callable:
    def __init__(self, run, stats):
        self.run, self.stats = run, stats

    def __call__(self, *args):
        return self.run(*args)

    def memory_analysis(self):
        return self.stats


@pytest.fixture(scope="module")
def sizes():
    return {lanes: needs(lanes) for lanes in (1, 2, 4)}


def test_lanes_are_halved_until_the_compilers_account_fits(sizes):
    assert sizes[1] < sizes[2] < sizes[4]
    narrow, wide = program(lanes=4, memory_limit=sizes[1]), program(lanes=1)
    with pytest.warns(FewerLanes, match="does not fit") as said:
        state, _ = narrow.run(narrow.init(START))
    assert len(said) == 2
    state, _ = narrow.run(state)  # and not a word more
    expected = wide.init(START)
    for _ in range(2):
        expected, _ = wide.run(expected)
    jax.tree.map(
        np.testing.assert_array_equal,
        narrow.logical(state).algorithm,
        wide.logical(expected).algorithm,
    )


def test_a_round_that_fits_is_left_alone(sizes):
    fits = program(lanes=4, memory_limit=sizes[4])
    fits.run(fits.init(START))


def test_one_lane_too_many_is_an_error(sizes):
    small = program(lanes=1, memory_limit=sizes[1] - 1)
    with pytest.raises(FedError, match=r"memory.*got .*use a smaller batch"):
        small.run(small.init(START))


def test_a_round_that_ran_out_of_memory_is_tried_again_on_half_the_lanes():
    run = make_adaptive(refusing(2), PLAN)
    with pytest.warns(FewerLanes, match="while trying to allocate 7 bytes") as said:
        _, told = run({"x": jnp.ones(3)}, ())
    assert told == (2, 1)
    assert len(said) == 2
    assert run({"x": jnp.ones(3)}, (), 3)[1] == (2, 3)


def test_nothing_left_to_give_up_is_an_error():
    with pytest.warns(FewerLanes), pytest.raises(FedError, match="fewer lanes take no less"):
        make_adaptive(refusing(9), PLAN)({"x": jnp.ones(3)}, ())


def test_a_state_that_went_down_with_the_round_is_there_again():
    with pytest.warns(FewerLanes):
        state, _ = make_adaptive(refusing(1, consuming=True), PLAN)({"x": jnp.ones(3)}, ())
    np.testing.assert_array_equal(state["x"], jnp.ones(3))


def test_devices_of_a_cpu_are_not_given_a_round_before_the_last_is_done():
    ready = []

    def build(plan, rounds):
        def run(state, table):
            ready.append(all(leaf.is_ready() for leaf in jax.tree.leaves(state)))
            return slow(state), ()

        return refusing(0)(plan, rounds)._replace(
            lower=lambda s, t: SimpleNamespace(compile=lambda: _Callable(run, None))
        )

    slow = jax.jit(
        lambda state: jax.tree.map(
            lambda x: jax.lax.fori_loop(0, 300, lambda i, m: m @ m / jnp.max(m), x), state
        )
    )
    run, state = make_adaptive(build, make_plan(Engine(devices=2), 12)), {"x": jnp.ones((150, 150))}
    for _ in range(4):
        state, _ = run(state, ())
    assert all(ready)
    assert len(ready) == 4


def test_other_errors_are_not_ours():
    def build(plan, rounds):
        def run(state, table):
            raise jax.errors.JaxRuntimeError("INTERNAL: broken")

        return refusing(0)(plan, rounds)._replace(
            lower=lambda s, t: SimpleNamespace(compile=lambda: _Callable(run, None))
        )

    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        make_adaptive(build, PLAN)({"x": jnp.ones(3)}, ())


def test_the_loop_says_it_once_and_notes_it(sizes):
    narrow = program(lanes=4, memory_limit=sizes[2])
    result = simulate(narrow, START, rounds=3, progress=False)
    assert len(result.notes) == 1
    assert "half the lanes" in result.notes[0]


def test_steps_beyond_the_local_work_are_the_local_work():
    more = samplers.stateless(lambda n: C, lambda key, n, round: jnp.arange(C, dtype=jnp.int32))

    def greedy(key, state, info, round):
        roster, state = more.sample(key, state, info, round)
        return roster._replace(steps=jnp.where(roster.present, 99, 0)), state

    def played(sampler, kind):
        algorithm = next(iter(REGISTRY.values())).factory(OBJECTIVE)
        made = make_round(
            algorithm, sampler, PEOPLE, WORK._replace(steps=2), Engine(kind, devices=1)
        )
        return made.logical(made.run(made.init(START))[0]).algorithm

    expected = played(more, "padded")
    for kind in ("queue", "padded"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            played(more._replace(sample=greedy), kind),
            expected,
        )
