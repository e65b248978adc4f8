"""Clients whose results are not finite: dropped as if they were absent, or the round that they
were in refused as if it had not been."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from federation import close, machine, scripted
from rigs import (
    ENGINES,
    FIRST,
    OBJECTIVE,
    PEOPLE,
    QUEUES,
    REPRESENTATIVES,
    ROUNDS,
    SEVERAL_TRIPS,
    SIZES,
    START,
    WORK,
    C,
    N,
    after,
    always,
    parameters,
    rig,
    script,
    spoiled,
)

from fedjax_sim import samplers
from fedjax_sim.aggregators import chain, clip, median, unweighted_mean
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.clients.learner import gradient_learner
from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Sampler, Upload
from fedjax_sim.engine import Engine
from fedjax_sim.engine.federate import federate
from fedjax_sim.engine.nonfinite import guard
from fedjax_sim.engine.program import make_round
from fedjax_sim.optimizers.corrections import local_optimizer
from fedjax_sim.persistence.checkpoint import open_store
from fedjax_sim.servers.optimizer import optimizer_server
from fedjax_sim.simulation.callbacks import callback, until_diverged
from fedjax_sim.simulation.history import History
from fedjax_sim.simulation.nonfinite_report import NonFinite
from fedjax_sim.simulation.simulate import simulate

DROP = guard("drop")
ONE_LANE = Engine("queue", lanes=1, backend="vmap", devices=1, shards=1)

BAD = [1, 4, 10]
EVERYBODY, OTHERS = always(range(C)), always([N if i in BAD else i for i in range(C)])


def same(have, want, tolerance):
    for (state, outcome), (expected, told) in zip(have, want, strict=True):
        close((state.algorithm, state.memory), (expected.algorithm, expected.memory), tolerance)
        metrics = {name: outcome.metrics[name] for name in told.metrics if name != "dropped"}
        close(metrics, {name: told.metrics[name] for name in metrics}, tolerance)


def check_told(have):
    for _, outcome in have:
        assert outcome.metrics["dropped"] == len(BAD)
        assert outcome.metrics["cohort"] == C - len(BAD)
        assert outcome.clients["nonfinite"].tolist() == [i if i in BAD else -1 for i in range(C)]
        for name, metric in outcome.clients.items():
            if name != "nonfinite":
                assert not metric.weight[BAD].any()
                assert not metric.total[BAD].any()


# ---------------------------------------------------------------------------------------- dropped


@pytest.mark.parametrize("name", parameters(REPRESENTATIVES, list(REGISTRY)))
def test_who_is_dropped_is_absent(name):
    it = rig(name, "padded", guard=DROP)
    have, want = after(it, EVERYBODY, spoiled(BAD)), after(it, OTHERS)
    same(have, want, 1e-5)
    check_told(have)
    assert [int(outcome.metrics["dropped"]) for _, outcome in want] == [0] * ROUNDS


@pytest.mark.parametrize(
    ("name", "engine"),
    [*((FIRST, engine) for engine in QUEUES), *((name, "vmap") for name in SEVERAL_TRIPS)],
)
def test_on_every_engine(name, engine):
    have = after(rig(name, engine, guard=DROP), EVERYBODY, spoiled(BAD, np.inf))
    same(have, after(rig(name, "padded"), OTHERS), 1e-5)
    check_told(have)


def test_to_the_last_bit_where_additions_have_one_order():
    it = rig(FIRST, ONE_LANE, guard=DROP)
    same(after(it, EVERYBODY, spoiled(BAD)), after(it, OTHERS), 0)


def test_a_stack_has_zeros_for_them_and_statistics_nothing():
    algorithm = federate(
        gradient_learner(OBJECTIVE, local_optimizer(0.1)),
        chain(clip(0.5), median()),
        optimizer_server(optax.sgd(1.0)),
    )
    it = rig(FIRST, "vmap")._replace(
        machine=machine(algorithm, script(C, ROUNDS), PEOPLE, WORK, ENGINES["vmap"], DROP)
    )
    have, want = after(it, EVERYBODY, spoiled(BAD)), after(it, OTHERS)
    same(have, want, 1e-5)
    assert have[0][1].metrics["clipped"].weight == C - len(BAD)


def test_who_sends_too_much_is_dropped_as_well():
    learner = gradient_learner(OBJECTIVE, local_optimizer(0.1))

    def finish(key, message, memory, local):
        return (
            Upload(
                jax.tree.map(lambda leaf: jnp.full_like(leaf, local.steps), message.params),
                message.state,
            ),
            memory,
            {},
        )

    algorithm = federate(
        learner._replace(finish=finish), unweighted_mean(), optimizer_server(optax.sgd(1.0))
    )
    made = machine(
        algorithm,
        script(C, 1),
        PEOPLE,
        WORK,
        ENGINES["vmap"],
        guard("drop", max_norm=4.5 * 15**0.5),
    )
    state, outcome = made.run(made.first(START, PEOPLE), made.data(PEOPLE))
    steps = np.array([2 * -(-size // 4) for size in SIZES[:C]])  # and 15 parameters
    assert outcome.clients["nonfinite"].tolist() == [i if steps[i] > 4 else -1 for i in range(C)]
    moved = START.params["b"] - made.logical(state).algorithm.server.variables.params["b"]
    np.testing.assert_allclose(moved, steps[steps <= 4].mean(), rtol=1e-5)


def test_samplers_that_look_see_them_as_absent():
    def sample(key, losses, info, round):
        return samplers.roster(jnp.arange(C, dtype=jnp.int32), info), losses

    def observe(losses, roster, metrics):
        return losses.at[roster.id].set(metrics["loss"].value, mode="drop")

    sampler = Sampler(
        lambda population: C, lambda info: jnp.full(len(info.size), 9.0), sample, observe
    )
    made = make_round(
        REGISTRY[FIRST].factory(OBJECTIVE), sampler, spoiled(BAD), WORK, ENGINES["vmap"], DROP
    )
    losses = np.asarray(made.run(made.init(START))[0].sampler)
    assert (losses[BAD] == 9).all()
    assert (np.delete(losses, [*BAD, *range(C, N)]) != 9).all()


# ---------------------------------------------------------------------------------------- refused

PLACES = {
    "vmap": Engine(devices=1, shards=4, lanes=2),
    "shard_map": Engine(devices=2, shards=4, lanes=2),
    "pmap": Engine(devices=4, shards=4, lanes=2, backend="pmap"),
    "data on the host": Engine(devices=2, shards=4, lanes=2, data="host"),
    "all on the host": Engine(devices=2, shards=4, lanes=2, client_memory="host"),
}
SECOND = scripted([range(C), [12, 4, 2, N, 0, 3, 11, N, 7, N, 9, N], range(C)])
"""Client 12 first takes part in the second round."""


def started(made, cohorts=SECOND):
    return made.place(made.logical(made.init(START)).replace(sampler=cohorts))


def everything(made, state):
    """All that a run leaves, wherever it is."""
    logical = made.logical(state)
    return (
        logical.replace(memory=made.host_memory.read(np.arange(N))) if made.host_memory else logical
    )


def program(name=FIRST, engine=ENGINES["vmap"], data=PEOPLE, policy=None):
    return make_round(
        REGISTRY[name].factory(OBJECTIVE), script(C, ROUNDS), data, WORK, engine, policy or guard()
    )


@cache
def expected():
    """After one good round, of a program where nobody looks."""
    made = program(policy=guard("propagate"))
    return made.logical(made.run(started(made))[0])


@pytest.mark.parametrize("place", PLACES)
def test_a_refused_round_leaves_everything_as_it_was(place):
    made = program(engine=PLACES[place], data=spoiled([12]))
    state = made.run(started(made))[0]
    first = everything(made, state)
    close((first.algorithm, first.memory), (expected().algorithm, expected().memory), 1e-6)
    for _ in range(2):
        state, _ = made.run(state)
        close(everything(made, state), first, 0)


@pytest.mark.parametrize("place", ["vmap", "all on the host"])
def test_rounds_of_one_call_end_there_too_and_the_culprit_is_found(place):
    made = program(engine=PLACES[place], data=spoiled([12]))
    state, outcome = made.run(started(made), 3)
    assert outcome.metrics["loss"].total.shape == (3,)
    assert int(state.round) == 1
    assert made.find_culprits(state).clients == (12,)
    close(everything(made, state).memory, expected().memory, 1e-6)


def test_nothing_is_copied_for_the_sake_of_a_round_that_may_be_refused():
    wide = PEOPLE._replace(x=np.tile(PEOPLE.x, (1, 100)), offsets=np.arange(len(PEOPLE.y) + 1))
    start = START._replace(
        params={"w": jnp.zeros((400, 3)), "b": jnp.zeros(3)},
        state={**START.state, "seen": jnp.zeros(400)},
    )
    for devices in (1, 2):
        engine, sampler = Engine(devices=devices, lanes=1), samplers.uniform(2)
        made = make_round(REGISTRY[FIRST].factory(OBJECTIVE), sampler, wide, WORK, engine, guard())
        state = made.init(start)
        rows = sum(leaf.nbytes for leaf in jax.tree.leaves(state.memory)) // devices
        assert made.lower(state).compile().memory_analysis().temp_size_in_bytes < rows


def test_who_looks_at_nothing_pays_nothing():
    parts = REGISTRY[FIRST].factory(OBJECTIVE), samplers.uniform(3), PEOPLE, WORK
    programs = make_round(*parts), make_round(*parts, guard=guard("propagate"))
    texts = [made.lower(made.init(START)).as_text() for made in programs]
    assert texts[0] == texts[1]


# ------------------------------------------------------------------------------------------- runs


def test_a_run_ends_before_the_bad_round_and_says_whose_it_is(tmp_path):
    made = program(data=spoiled([12])._replace(names=tuple("abcdefghijklm")))
    store, seen = open_store(tmp_path), []
    watch = callback(on_round_end=lambda event: seen.append(event.round))
    first = made.logical(started(made))
    with pytest.raises(
        NonFinite, match=r"round 2 was rejected.*: got client 12 \(m\) as the cause; .*'drop'"
    ) as caught:
        simulate(
            made,
            None,
            rounds=3,
            resume=first,
            store=store,
            rounds_per_call=3,
            callbacks=[watch],
            progress=False,
        )
    assert seen == [1]
    assert (caught.value.round, caught.value.culprits.clients, caught.value.culprits.names) == (
        2,
        (12,),
        ("m",),
    )
    assert store.steps() == (1,)
    saved = store.restore(first).state
    close((saved.algorithm, saved.memory), (expected().algorithm, expected().memory), 1e-6)


def test_a_model_that_overflows_is_nobodys_fault():
    server = optimizer_server(optax.chain(optax.scale(1e30), optax.sgd(1e30)))
    made = make_round(
        federate(gradient_learner(OBJECTIVE, local_optimizer(0.1)), unweighted_mean(), server),
        script(C),
        PEOPLE,
        WORK,
        ENGINES["vmap"],
        guard(),
    )
    with pytest.raises(
        NonFinite,
        match="although the result of every client was: got a reduction or a server update",
    ):
        simulate(made, START, rounds=3, progress=False)


def rows_of(**columns):
    names = list(columns)
    return History(
        {
            i + 1: dict(zip(names, values, strict=True))
            for i, values in enumerate(zip(*columns.values(), strict=True))
        }
    )


@pytest.mark.parametrize(
    ("columns", "stops"),
    [
        ({"loss": [1.0, np.nan, np.inf, np.nan]}, "loss was not finite for 3 rounds up to round 4"),
        ({"loss": [np.nan, np.nan, 1.0, np.nan]}, None),
        ({"other": [np.nan] * 4}, None),
        (
            {"dropped": [0, 4, 4, 4], "cohort": [4, 0, 0, 0]},
            "all clients were dropped for 3 rounds",
        ),
        ({"dropped": [4, 4, 3, 4], "cohort": [0, 0, 1, 0]}, None),
        ({"dropped": [0, 0, 0, 0], "cohort": [0, 0, 0, 0]}, None),
    ],
)
def test_a_diverged_run_stops_with_a_sentence(columns, stops):
    history = rows_of(**columns)
    check = until_diverged(3).on_round_end
    reasons = [check(event) for event in events(history)]
    assert reasons[:3] == [None] * 3
    assert reasons[3] is None if stops is None else stops in reasons[3].reason


def events(history):
    from fedjax_sim.simulation.callbacks import Event

    for round_, row in history.rows.items():
        past = History({at: held for at, held in history.rows.items() if at <= round_})
        yield Event(round_, 9, row, past, None, None)


def test_a_run_of_nan_stops_unless_it_is_to_go_on():
    made = program(data=spoiled(range(C)), policy=guard("propagate"))
    stopped = simulate(made, START, rounds=7, progress=False)
    assert int(stopped.state.round) == 3
    assert stopped.stopped.startswith("diverged: ")
    assert int(simulate(made, START, rounds=7, progress=False, patience=None).state.round) == 7


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"nonfinite": "rais"}, "did you mean 'raise'"),
        ({"max_norm": -1.0}, "guard.max_norm must be positive"),
        ({"patience": 0}, "guard.patience must be positive"),
        ({"nonfinite": "propagate", "max_norm": 1.0}, "guard.max_norm has no effect"),
    ],
)
def test_wrong_settings_are_refused(settings, says):
    with pytest.raises(FedError, match=says):
        guard(**settings)
