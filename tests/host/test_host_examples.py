"""Examples that stay on the host: the same bits as from the devices, and only what is needed."""

import threading
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from federation import close, scripted
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import COHORTS, OBJECTIVE, PEOPLE, ROUNDS, SIZES, START, WORK, C, N, remembers, script

from fedjax_sim import samplers
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Mean, Roster, Sampler
from fedjax_sim.data.population import to_table
from fedjax_sim.engine import Engine, make_plan
from fedjax_sim.engine.devices.memory_limit import choose_place
from fedjax_sim.engine.host import examples
from fedjax_sim.engine.program import make_round
from fedjax_sim.persistence.manifest import state_hash

TWO = [next(name for name in REGISTRY if remembers(name) is wanted) for wanted in (False, True)]
LAYOUTS = {"vmap": 1, "shard_map": 2, "pmap": 4}
REPEATS = {(TWO[0], "vmap"), (TWO[0], "pmap"), (TWO[1], "vmap")}
"""Left to slow tests: one device is that of the samplers below; memory matters, not its absence."""


def program(place, name=TWO[1], sampler=None, devices=1, backend="auto", work=WORK, data=PEOPLE):
    engine = Engine(lanes=2, devices=devices, backend=backend, shards=4, data=place)
    return make_round(
        REGISTRY[name].factory(OBJECTIVE), sampler or samplers.uniform(C), data, work, engine
    )


def scripting(place, name, **layout):
    """The rigs' cohorts, with absent rows and clients who do part of their work."""
    made = program(place, name, script(C, ROUNDS), **layout)
    return made, made.place(made.logical(made.init(START)).replace(sampler=COHORTS))


def drawn_from(sampler, place, rounds=4, seed=3):
    """Hash of the state after every round."""
    made, seen = program(place, sampler=sampler, work=WORK._replace(shuffle=True)), []
    state = made.init(START, seed)
    for _ in range(rounds):
        state, _ = made.run(state)
        seen.append(state_hash(made.logical(state)))
    return seen


def played(place, name, **layout):
    """Hash of the state after the rigs' cohorts."""
    made, state = scripting(place, name, **layout)
    state, _ = made.run(state, ROUNDS)
    return state_hash(made.logical(state))


@cache
def on_device(name):
    return played("device", name)


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(name, backend, marks=[pytest.mark.slow] if (name, backend) in REPEATS else [])
        for name in TWO
        for backend in LAYOUTS
    ],
)
def test_every_layout_gives_the_same_bits(name, backend):
    there = played("host", name, devices=LAYOUTS[backend], backend=backend)
    assert there == on_device(name)


def curious():
    """Takes the clients with the highest loss, so the next cohort depends on the round's result."""

    def sample(key, losses, info, round):
        return samplers.roster(jnp.argsort(-losses).astype(jnp.int32)[:3], info), losses

    def observe(losses, roster: Roster, metrics):
        seen: Mean = metrics["loss"]
        return losses.at[roster.id].set(seen.value, mode="drop")

    return Sampler(
        lambda population: 3, lambda info: jnp.full(len(info.size), 9.0), sample, observe
    )


SAMPLERS = {
    "uniform": lambda: samplers.uniform(5),
    "cyclic": lambda: samplers.cyclic(4),
    "poisson": lambda: samplers.poisson(3.0),
    "full": samplers.full,
    "dropout": lambda: samplers.dropout(samplers.uniform(6), 0.5),
    "curious": curious,
}
OFTEN = ("poisson", "curious")
"""Of cohorts of another size each round, and of those that depend on the last round's result."""


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[] if k in OFTEN else [pytest.mark.slow]) for k in SAMPLERS],
)
def test_every_kind_of_sampler_is_followed(kind):
    sampler = SAMPLERS[kind]()
    assert drawn_from(sampler, "host") == drawn_from(sampler, "device")


def test_many_rounds_in_one_call_and_any_state_to_go_on_from():
    made = program("host")
    first = made.logical(made.init(START))
    state, outcome = made.run(made.place(first), 3)
    assert outcome.metrics["loss"].total.shape == (3,)
    assert outcome.clients["loss"].total.shape == (3, C)
    third = made.logical(state)
    made.run(
        state
    )  # and now back: what was packed for the round after is not that of the round before
    again, _ = made.run(made.place(first), 2)
    again, _ = made.run(made.place(made.logical(again)))
    assert state_hash(made.logical(again)) == state_hash(third)
    other, _ = made.run(made.place(first.replace(seed=np.uint32(7))), 3)
    assert state_hash(made.logical(other)) != state_hash(third)


def test_the_next_cohort_is_packed_behind(monkeypatch):
    packers, pack = [], examples.pack
    monkeypatch.setattr(
        examples,
        "pack",
        lambda *args: packers.append(threading.current_thread().name) or pack(*args),
    )
    made = program("host")
    made.run(made.init(START), 3)
    caller = threading.current_thread().name
    assert packers[0] == caller
    assert caller not in packers[1:]


def test_what_goes_wrong_behind_is_told_at_the_next_round(monkeypatch):
    made, pack, calls = program("host"), examples.pack, []

    def broken(*args):
        calls.append(1)
        if len(calls) == 2:
            raise OSError("the disk is gone")
        return pack(*args)

    monkeypatch.setattr(examples, "pack", broken)
    state, _ = made.run(made.init(START))
    with pytest.raises(OSError, match="the disk is gone"):
        made.run(state)
    after, _ = made.run(state)  # the state is unharmed, and the next try may go well
    expected = program("device")
    assert state_hash(made.logical(after)) == state_hash(
        expected.logical(expected.run(expected.init(START), 2)[0])
    )


def test_buffers_are_few_and_large_enough():
    made = {examples.bucket(rows, PEOPLE, 3) for rows in range(1, sum(SIZES) + 1)}
    assert len(made) <= 8
    for rows in range(1, sum(SIZES) + 1):
        assert rows <= examples.bucket(rows, PEOPLE, 3) <= max(sum(SIZES), rows)


@settings(deadline=None)
@given(st.sets(st.integers(0, N - 1)), st.integers(0, 3))
def test_a_table_holds_its_clients_rows(ids, spare):
    ids = np.array(sorted(ids), np.int64)
    rows = int(examples.sizes_of(PEOPLE, ids).sum())
    table = examples.fill(
        PEOPLE,
        ids,
        len(ids) + spare,
        (np.full((rows + 2, 4), np.nan, np.float32), np.full(rows + 2, -1, np.int32)),
    )
    whole = to_table(PEOPLE)
    for client in range(N + 1):
        place = int(table.place(jnp.int32(client))) if len(ids) + spare else 0
        if client in ids:
            here, there = (
                slice(t.offset[i], t.offset[i] + t.size[i])
                for t, i in ((table, place), (whole, client))
            )
            np.testing.assert_array_equal(table.x[here], whole.x[there])
            np.testing.assert_array_equal(table.y[here], whole.y[there])
        elif place < len(ids) + spare and table.ids[place] == client:
            assert table.size[place] == 0


def test_each_device_is_brought_its_own_clients_alone():
    plan = make_plan(Engine(devices=4, shards=4, data="host"), max(SIZES))
    roster = Roster(
        np.array([0, 4, N, 9, 2, 11]),
        np.array([3, 1, 0, 2, 2, 0]),
        np.array([7, 1, 0, 10, 12, 0]),
        np.zeros(6),
        np.int32(N),
    )
    places = np.array([[0, 1], [3, 6], [4, 2], [5, 6]])
    hands = examples.clients_by_device(examples.SampledCohort(roster, (), places), 4)
    tables = examples.pack(PEOPLE, plan, hands, 2, examples.most_examples(PEOPLE, hands), [])
    assert [table.ids.tolist() for table in tables] == [[0, 4], [9, N], [2, N], [N, N]]
    assert [table.size.tolist() for table in tables] == [[7, 1], [8, 0], [12, 0], [0, 0]]
    assert len({len(table.x) for table in tables}) == 1


def test_examples_are_on_the_devices_where_they_fit(monkeypatch):
    plan = make_plan(Engine(devices=1), max(SIZES))
    assert choose_place(plan, PEOPLE).data == "device"
    assert choose_place(plan._replace(data="host"), PEOPLE).data == "host"
    huge = PEOPLE._replace(x=np.broadcast_to(np.float32(0), (sum(SIZES), 10**12)))
    assert choose_place(plan, huge).data == "host"
    assert choose_place(plan, to_table(PEOPLE)).data == "device"
    with pytest.raises(FedError, match=r"got .*pass a Population"):
        choose_place(plan._replace(data="host"), to_table(PEOPLE))


def test_clients_of_a_state_on_the_host_may_be_absent_altogether():
    made, state = scripting("host", TWO[0])
    absent = made.place(made.logical(state).replace(sampler=scripted([[N] * C] * ROUNDS)))
    after, outcome = made.run(absent)
    assert float(outcome.metrics["cohort"][0]) == 0
    close(made.logical(after).algorithm, made.logical(state).algorithm, 0)
