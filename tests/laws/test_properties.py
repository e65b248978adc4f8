"""Properties for any ragged cohort.

Shapes are fixed and sizes are data, so that every example runs the same compiled programs.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from federation import close, scripted
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import PEOPLE, ROUNDS, C, N, after, remembers, rig

from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.types import Roster
from fedjax_sim.data.population import Table
from fedjax_sim.engine.lanes.schedule import (
    assign_to_shards,
    by_shard,
    stagger,
    to_roster_order,
)
from fedjax_sim.persistence.manifest import state_hash

FIRST = next(filter(remembers, REGISTRY))
LIMIT, ROWS = int(PEOPLE.sizes.max()), len(PEOPLE.y)

bounded = partial(settings, deadline=None, derandomize=True, database=None)


def many(element, length):
    return st.lists(element, min_size=length, max_size=length).map(
        lambda values: np.array(values, np.int32)
    )


@st.composite
def tables(draw):
    """Any clients whatsoever, of 1 to 12 examples; they may even share some."""
    size, at = draw(many(st.integers(1, LIMIT), N)), draw(many(st.integers(0, ROWS - LIMIT), N))
    x, y = jnp.asarray(PEOPLE.x), jnp.asarray(PEOPLE.y)
    return Table(x, y, jnp.asarray(at), jnp.asarray(size))


@st.composite
def cohorts(draw):
    """Any cohorts: in any order, any rows absent or with nothing to do, any number of steps."""
    ids = np.stack([draw(st.permutations(range(N)))[:C] for _ in range(ROUNDS)])
    away = np.stack([draw(many(st.booleans(), C)) for _ in range(ROUNDS)]).astype(bool)
    most = np.stack([draw(many(st.integers(0, 2 * LIMIT), C)) for _ in range(ROUNDS)])
    return scripted(np.where(away, N, ids), most)


@pytest.mark.xdist_group(FIRST)
@bounded(max_examples=25)
@given(tables(), cohorts())
def test_the_queue_is_the_padded_engine_for_any_clients_and_cohorts(table, cohort):
    runs = {
        engine: after(rig(FIRST, engine), cohort, table) for engine in ("padded", "vmap", "pmap")
    }
    for (padded, told), (queue, outcome) in zip(runs["padded"], runs["vmap"], strict=True):
        close(queue, padded, 2e-5)
        close(outcome, told, 2e-5)
    assert [state_hash(state) for state, _ in runs["vmap"]] == [
        state_hash(state) for state, _ in runs["pmap"]
    ]


# ------------------------------------------------------------------------------------------ dealing

SHARDS = 3
dealt = jax.jit(lambda roster: by_shard(roster, assign_to_shards(roster, SHARDS)))
dealt_to_eight = jax.jit(lambda roster: by_shard(roster, assign_to_shards(roster, 8)))


@st.composite
def rosters(draw):
    ids = np.array(draw(st.permutations(range(N)))[: C - 1], np.int32)
    steps, away = (
        draw(many(st.integers(0, 50), C - 1)),
        draw(many(st.booleans(), C - 1)).astype(bool),
    )
    ids = np.where(away, N, ids).astype(np.int32)
    return Roster(ids, steps, steps * 3, np.zeros_like(ids), np.int32(N))


@bounded(max_examples=150)
@given(rosters())
def test_dealing_gives_every_present_client_to_one_shard_and_no_shard_much_more_than_another(
    roster,
):
    got = jax.device_get(dealt(roster))
    present = np.asarray(roster.present)
    working = got.members.steps > 0
    assert got.members.id.shape == (SHARDS, -(-(C - 1) // SHARDS))
    assert sorted(got.members.id[working]) == sorted(roster.id[present])
    np.testing.assert_array_equal(got.members.id[working], roster.id[got.place[working]])
    np.testing.assert_array_equal(got.members.size[working], roster.size[got.place[working]])
    assert sorted(got.place[got.place < C - 1].ravel()) == list(range(C - 1))
    loads = got.members.steps.sum(1)
    assert loads.max() - loads.min() <= got.members.steps.max()
    assert (
        np.diff(got.members.steps, axis=1) <= 0
    ).all()  # longest first, those who do nothing last


@bounded(max_examples=40)
@given(rosters(), st.sampled_from([2, 4, 8]))
def test_devices_that_share_eight_shards_get_no_more_than_one_client_more_than_another(
    roster, devices
):
    got = jax.device_get(dealt_to_eight(roster))
    assert sorted(got.place[got.place < C - 1].ravel()) == list(range(C - 1))
    loads = got.members.steps.reshape(devices, -1).sum(1)
    assert loads.max() - loads.min() <= got.members.steps.max()


@pytest.mark.parametrize("shards", [1, 2, 6, 8, 12, 15, 64])
def test_every_shard_has_one_place_in_the_snake(shards):
    assert sorted(stagger(shards)) == list(range(shards))


@bounded(max_examples=40)
@given(rosters(), st.integers(0, 2**31 - 1))
def test_dealing_depends_on_who_is_there_and_not_on_the_order(roster, seed):
    turn = np.random.default_rng(seed).permutation(C - 1)
    turned = roster._replace(
        **{name: getattr(roster, name)[turn] for name in ("id", "steps", "size", "delay")}
    )
    one, two = jax.device_get((dealt(roster), dealt(turned)))
    working = one.members.steps > 0
    np.testing.assert_array_equal(one.members.id[working], two.members.id[working])
    np.testing.assert_array_equal(one.members.steps, two.members.steps)


@bounded(max_examples=40)
@given(rosters())
def test_what_was_dealt_comes_back_in_the_order_of_the_roster(roster):
    got = dealt(roster)
    back = to_roster_order(
        got, {"steps": got.members.steps, "rows": got.members.size[..., None]}, C - 1
    )
    np.testing.assert_array_equal(back["steps"], np.where(roster.present, roster.steps, 0))
    np.testing.assert_array_equal(
        back["rows"][:, 0], np.where(roster.id < N, roster.size, back["rows"][:, 0])
    )
