"""The round as a program: scan = loop, stacked reports, donation; and as a pure function: vmap
over seeds, derivatives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from federation import close
from rigs import (
    COHORTS,
    ENGINES,
    FIRST,
    OBJECTIVE,
    PEOPLE,
    ROUNDS,
    START,
    WORK,
    C,
    N,
    Subject,
    counted,
    history,
    remembers,
    script,
)

from fedjax_sim import samplers
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.errors import FedError
from fedjax_sim.data.batching import local_work
from fedjax_sim.data.population import to_table
from fedjax_sim.engine import Engine, make_plan
from fedjax_sim.engine.program import make_round
from fedjax_sim.engine.round import initial_state, make_spmd, repeat
from fedjax_sim.persistence.manifest import state_hash


def algorithm(name, traces=None):
    return REGISTRY[name].factory(counted(OBJECTIVE, [] if traces is None else traces))


# Two stand for all where only the round is at stake: one whose clients remember nothing, one whose
# clients do.
TWO = [next(name for name in REGISTRY if not remembers(name)), FIRST]
BOTH = pytest.mark.parametrize("name", TWO)
FORGETFUL = TWO[0]


def scripted(program, state):
    return program.place(program.logical(state).replace(sampler=COHORTS))


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        (TWO[0], Engine("queue", lanes=2, devices=1)),
        pytest.param(TWO[1], ENGINES["pmap"], marks=pytest.mark.xdist_group(f"{FIRST} optimized")),
    ],
)
def test_several_rounds_in_one_call_are_as_many_calls(name, engine):
    traces: list[int] = []
    program = make_round(algorithm(name, traces), script(C, ROUNDS), PEOPLE, WORK, engine)
    one, states, outcomes = scripted(program, program.init(START)), [], []
    for _ in range(ROUNDS):
        one, outcome = program.run(one)
        states.append(program.logical(one))
        outcomes.append(jax.device_get(outcome))
    once = len(traces)
    together, outcome = program.run(scripted(program, program.init(START)), ROUNDS)
    assert state_hash(program.logical(together)) == state_hash(states[-1])
    close(
        jax.device_get(outcome), jax.tree.map(lambda *rounds: np.concatenate(rounds), *outcomes), 0
    )
    assert outcome.metrics["loss"].total.shape == outcome.metrics["cohort"].shape == (ROUNDS,)
    assert outcome.clients["loss"].total.shape == (ROUNDS, C)
    if engine.shards:
        assert [state_hash(state) for state in states] == [
            state_hash(state) for state, _ in history(Subject(FIRST, quick=False), engine.backend)
        ]
    program.run(program.init(START, seed=5), ROUNDS)
    program.run(program.init(START, seed=5))
    assert len(traces) == 2 * once  # one program for one round, one for three


def test_a_program_donates_its_state_and_leaves_the_callers_variables_alone():
    program = make_round(algorithm(FORGETFUL), samplers.cyclic(C), PEOPLE, WORK)
    assert program.plan.backend == "shard_map"
    state = program.init(START, seed=7)
    assert program.logical(state).seed == 7
    cost = program.lower(state).cost_analysis()
    assert cost is None or cost
    after, _ = program.run(state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((START, after)))
    close(program.logical(program.place(program.logical(after))), program.logical(after), 0)


def test_rounds_must_be_positive_and_the_cohort_must_exist():
    with pytest.raises(FedError, match="cohort must not exceed the population"):
        make_round(algorithm(FORGETFUL), samplers.uniform(N + 1), PEOPLE, WORK)
    program = make_round(algorithm(FORGETFUL), samplers.uniform(N), PEOPLE, WORK)
    with pytest.raises(FedError, match="rounds must be positive"):
        program.run(program.init(START), 0)


# -------------------------------------------------------------------------------- a pure function


@pytest.mark.timeout(
    120, method="thread"
)  # a loop that waits for a run that is over never ends, and hears no signal
@BOTH
def test_vmap_over_seeds_is_a_run_for_each(name):
    plan, table = (
        make_plan(Engine("queue", lanes=2, devices=1), int(PEOPLE.sizes.max())),
        to_table(PEOPLE),
    )
    sampler = samplers.dropout(samplers.uniform(4), 0.3)
    spmd = make_spmd(algorithm(name), sampler, plan, WORK)
    first = partial(initial_state, algorithm(name), sampler, table.size, WORK, START)
    alone = jax.jit(spmd)
    together = jax.vmap(spmd, in_axes=(0, None))
    states, outcomes = jax.jit(together)(jax.vmap(first)(jnp.arange(3)), table)
    for i in range(3):
        state, outcome = alone(first(i), table)
        close(
            *jax.device_get(
                (jax.tree.map(lambda leaf, i=i: leaf[i], (states, outcomes)), (state, outcome))
            )
        )
    assert len({leaf.tobytes() for leaf in np.asarray(jax.tree.leaves(states.algorithm)[0])}) == 3


def test_the_padded_engine_differentiates_in_reverse_what_the_queue_computes_forward():
    name, work, table = TWO[1], local_work(4, 1), to_table(PEOPLE)

    def final(kind, params):
        plan = make_plan(Engine(kind, lanes=2, devices=1), int(PEOPLE.sizes.max()))
        made, sampler = algorithm(name), samplers.cyclic(C)
        state = initial_state(made, sampler, table.size, work, START._replace(params=params), 0)
        after, outcome = repeat(make_spmd(made, sampler, plan, work), 2, state, table)
        model = made.variables(after.algorithm).params
        return (
            sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(model))
            + outcome.metrics["loss"].value[-1]
        )

    def along(params, direction):
        return jax.jvp(partial(final, "queue"), (params,), (direction,))

    forward, params = jax.jit(along), START.params
    value, gradient = jax.jit(jax.value_and_grad(partial(final, "padded")))(params)
    keys = jax.random.split(jax.random.key(1), len(params))
    direction = {
        name: jax.random.normal(key, params[name].shape)
        for name, key in zip(params, keys, strict=True)
    }
    same, slope = forward(params, direction)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_allclose(value, same, rtol=1e-5)
    np.testing.assert_allclose(
        sum(jnp.vdot(gradient[name], direction[name]) for name in params), slope, rtol=1e-4
    )
    h = 1e-2
    up, down = (
        forward({name: params[name] + s * h * direction[name] for name in params}, direction)[0]
        for s in (1, -1)
    )
    np.testing.assert_allclose((up - down) / (2 * h), slope, rtol=1e-2)
    assert abs(slope) > 0.1
