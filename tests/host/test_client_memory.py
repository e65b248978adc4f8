"""Client memory on the host: the same bits as on the devices, and always of the state's round."""

import jax
import numpy as np
import pytest
from federation import close
from rigs import (
    COHORTS,
    ENGINES,
    OBJECTIVE,
    PEOPLE,
    REPRESENTATIVES,
    ROUNDS,
    START,
    WORK,
    C,
    N,
    history,
    parameters,
    quick_compilation,
    remembers,
    script,
)

from fedjax_sim import samplers
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.errors import FedError
from fedjax_sim.data.federation import Federation
from fedjax_sim.engine import Engine
from fedjax_sim.engine.program import make_round
from fedjax_sim.persistence.manifest import state_hash
from fedjax_sim.simulation import evaluate_clients
from fedjax_sim.simulation.evaluate import make_evaluation
from fedjax_sim.tasks import Task
from fedjax_sim.testing.trips import signature

REMEMBER = [name for name in REGISTRY if remembers(name)]
LAYOUTS = {"vmap": 1, "shard_map": 2, "pmap": 4}


PERSONAL = next(name for name in REMEMBER if signature(REGISTRY[name].factory).personal)


def program(name=REMEMBER[0], sampler=None, keep="host", devices=1, backend="auto", work=WORK):
    engine = Engine(lanes=2, devices=devices, backend=backend, shards=4, client_memory=keep)
    return make_round(
        REGISTRY[name].factory(OBJECTIVE), sampler or samplers.uniform(5), PEOPLE, work, engine
    )


def remembered(made, state):
    """Everybody's rows ``[N, ...]``, wherever they are."""
    if made.host_memory is None:
        return made.logical(state).memory
    devices = len(made.plan.devices)
    ids = np.arange(-(-N // devices) * devices)
    shown = made.host_memory.fetch_to_devices(ids)
    flat = jax.tree.map(
        lambda leaf: (
            np.asarray(leaf).reshape(len(ids), *leaf.shape[2:])
            if made.plan.backend == "pmap"
            else leaf
        ),
        shown,
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:N], flat)


@pytest.mark.parametrize(
    "name", parameters([name for name in REPRESENTATIVES if remembers(name)], REMEMBER)
)
def test_memory_on_the_host_gives_the_same_bits(name):
    made = program(name, script(C, ROUNDS))
    state = made.place(made.logical(made.init(START)).replace(sampler=COHORTS))
    for expected, measured in history(name, ENGINES["vmap"]):
        with quick_compilation():
            state, outcome = made.run(state)
        close(jax.tree.map(lambda leaf: np.asarray(leaf)[0], outcome), measured, 0)
        close(made.logical(state).algorithm, expected.algorithm, 0)
        close(remembered(made, state), expected.memory, 0)


@pytest.mark.parametrize("backend", LAYOUTS)
def test_every_layout_keeps_the_same_rows_when_cohorts_overlap(backend):
    here, there = program(devices=LAYOUTS[backend], backend=backend), program(keep="device")
    one, other = here.init(START, 5), there.init(START, 5)
    for rounds in (1, 3, 2):
        (one, _), (other, _) = here.run(one, rounds), there.run(other, rounds)
        close(remembered(here, one), remembered(there, other), 0)
        close(here.logical(one).algorithm, there.logical(other).algorithm, 0)
    assert jax.tree.leaves(here.logical(one).memory) == []


def test_a_snapshot_brings_back_what_everybody_remembered(tmp_path):
    made = program()
    made.host_memory.use(tmp_path / "memory")
    state, _ = made.run(made.init(START, 5), 2)
    saved, described = made.logical(state), made.host_memory.snapshot()
    then = remembered(made, state)
    state, _ = made.run(state, 3)
    last, rows = state_hash(made.logical(state)), remembered(made, state)
    again = program()
    made.host_memory.use(tmp_path / "elsewhere")  # lets go of the folder
    again.host_memory.use(tmp_path / "memory")
    again.init(START, 5)
    again.host_memory.restore(described)
    close(remembered(again, saved), then, 0)
    state, _ = again.run(again.place(saved), 3)
    assert state_hash(again.logical(state)) == last
    close(remembered(again, state), rows, 0)


def test_a_state_of_another_round_is_refused():
    made = program()
    first = made.logical(made.init(START))
    made.run(made.place(first))
    with pytest.raises(
        FedError,
        match=r"the same round: got client memory from round 1, but a state from round 0; ",
    ):
        made.run(made.place(first))


def test_nothing_is_kept_of_a_round_that_did_not_come_about(monkeypatch):
    made, expected = program(), program(keep="device")
    state, _ = made.run(made.init(START))
    logical = made.logical(state)
    bad = jax.tree.map(lambda leaf: leaf[:-1] if leaf.ndim else leaf, logical.algorithm)
    with pytest.raises(Exception):  # noqa: B017, PT011 -- whatever the compiler says of wrong shapes
        made.run(made.place(logical.replace(algorithm=bad)))
    state, _ = made.run(made.place(logical))
    other, _ = expected.run(expected.init(START), 2)
    close(remembered(made, state), remembered(expected, other), 0)


def test_who_remembers_nothing_needs_no_vault():
    name = next(name for name in REGISTRY if not remembers(name))
    made, expected = program(name), program(name, keep="device")
    state, _ = made.run(made.init(START), 3)
    assert made.host_memory.snapshot()["round"] == 3
    other, _ = expected.run(expected.init(START), 3)
    assert state_hash(made.logical(state)) == state_hash(expected.logical(other))


def test_examples_on_the_devices_are_refused():
    with pytest.raises(FedError, match=r"got .*leave engine.data out"):
        make_round(
            REGISTRY[REMEMBER[0]].factory(OBJECTIVE),
            samplers.uniform(5),
            PEOPLE,
            WORK,
            Engine(data="device", client_memory="host"),
        )


@pytest.mark.parametrize("portion", [1, 2**26], ids=["client by client", "all at once"])
@pytest.mark.parametrize(
    "engine", [{"data": "host"}, {"client_memory": "host"}], ids=["examples", "memory"]
)
def test_clients_are_judged_the_same_wherever_their_things_are(engine, portion, monkeypatch):
    monkeypatch.setattr(evaluate_clients, "BLOCK_BYTES", portion)
    held_out = PEOPLE._replace(
        x=PEOPLE.x[:30],
        y=PEOPLE.y[:30],
        offsets=np.cumsum([0, 2, 0, 3, 1, 0, 2, 5, 1, 1, 4, 2, 6, 3]),
    )
    task = Task("people", Federation(PEOPLE, held_out), None, OBJECTIVE, lambda key: START)
    numbers = []
    for place in ({}, engine):
        made = make_round(
            REGISTRY[PERSONAL].factory(OBJECTIVE),
            samplers.uniform(5),
            PEOPLE,
            WORK,
            Engine(lanes=2, devices=2, shards=4, **place),
        )
        judged = make_evaluation(REGISTRY[PERSONAL].factory(OBJECTIVE), task, made, batch_size=2)
        state, _ = made.run(made.init(START, 5), 3)
        numbers.append(judged(state))
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) > 10
