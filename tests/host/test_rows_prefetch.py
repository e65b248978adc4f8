import threading
import time
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_sim.core.errors import FedError
from fedjax_sim.engine.host.rows import open_pipeline, open_row_store

CLIENTS = 40
LIKE = {"a": np.zeros(3), "b": np.int32(0)}


def step(rows, round_):
    """A round: what it makes of its clients' rows depends on all that they were."""
    return {"a": rows["a"] * 1.5 + round_, "b": rows["b"] * 3 + np.int32(round_)}


def cohorts(seed, rounds=30):
    """Of all sizes, most of them with clients of the one before, and with absent ones."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        ids = rng.permutation(CLIENTS)[: rng.integers(0, CLIENTS)]
        yield rng.permutation(np.concatenate([ids, np.full(rng.integers(0, 3), CLIENTS)]))


def in_order(folder, plan):
    vault, taken = open_row_store(folder, LIKE, CLIENTS), []
    for round_, ids in enumerate(plan):
        rows = vault.read(ids)
        taken.append({name: leaf.copy() for name, leaf in rows.items()})
        vault.write(ids, step(rows, round_))
    taken.append(vault.read(np.arange(CLIENTS)))
    vault.close()
    return taken


def behind(folder, plan, rng, early):
    """``early``: the next cohort is known before the running round's rows are back."""
    vault = open_row_store(folder, LIKE, CLIENTS)
    line, taken = open_pipeline(vault, CLIENTS), []
    plan = [*plan, np.arange(CLIENTS)]
    line.prefetch(plan[0])
    for round_, (ids, after) in enumerate(pairwise(plan)):
        rows = line.take()
        taken.append({name: leaf.copy() for name, leaf in rows.items()})
        calls = [partial(line.prefetch, after), partial(line.deliver, ids, step(rows, round_))]
        for call in calls if early else reversed(calls):
            call()
            time.sleep(rng.choice([0, 0, 0.001]))
    taken.append(line.take())
    line.close()
    vault.close()
    return taken


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_behind_rounds_is_the_same_as_in_order(tmp_path, seed, early):
    plan = list(cohorts(seed))
    one = in_order(tmp_path / "a", plan)
    other = behind(tmp_path / "b", plan, np.random.default_rng(seed), early)
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert all((a[name] == b[name]).all() and a[name].dtype == b[name].dtype for name in LIKE)


@pytest.fixture
def vault(tmp_path):
    vault = open_row_store(tmp_path, LIKE, CLIENTS)
    yield vault
    vault.close()


def altered(vault, **methods):
    """The vault with another ``read`` or ``write``."""
    return SimpleNamespace(**{"read": vault.read, "write": vault.write, **methods})


def rows(count, value=1):
    return {"a": np.full((count, 3), float(value)), "b": np.full(count, value, np.int32)}


def test_rows_that_are_out_are_not_read_and_calls_do_not_wait(vault):
    asked, gate = [], threading.Event()

    def slow(ids):
        asked.append(list(ids))
        assert gate.wait(20)
        return vault.read(ids)

    line = open_pipeline(altered(vault, read=slow), CLIENTS)
    line.prefetch([1, 2, 3])
    gate.set()
    line.take()
    gate.clear()
    line.prefetch([3, 4, 2])
    line.deliver([2, 3], {**rows(2), "b": jnp.ones(2, jnp.int32)})
    gate.set()
    assert line.take()["b"].tolist() == [1, 0, 1]
    assert asked == [[1, 2, 3], [CLIENTS, 4, CLIENTS]]
    line.close()


def test_rows_that_are_still_out_are_not_given(vault):
    line = open_pipeline(vault, CLIENTS)
    with pytest.raises(FedError, match="no rows to take"):
        line.take()
    line.prefetch([1, 2])
    with pytest.raises(FedError, match="one cohort is prefetched at a time"):
        line.prefetch([1])
    line.take()
    line.prefetch([2, 3])
    for _ in range(2):
        with pytest.raises(FedError, match=r"still in use: got \[2\]; deliver"):
            line.take()
    line.deliver([2], rows(1))
    assert line.take()["b"].tolist() == [1, 0]
    line.prefetch([7])
    assert line.take()["b"].tolist() == [0], "clients not in use do not wait for those in use"
    line.prefetch([CLIENTS, 8, 8, CLIENTS])
    assert line.take()["b"].tolist() == [0, 0, 0, 0], "an absent client is never in use"
    line.prefetch([8, CLIENTS, 8])
    line.deliver(np.zeros(0, int), rows(0))
    line.deliver([8], rows(1, 5))
    assert line.take()["b"].tolist() == [5, 0, 5]
    line.close()


def test_what_could_not_be_read_is_told_once(vault):
    def failing(ids):
        raise FedError("the row is damaged")

    line = open_pipeline(altered(vault, read=failing), CLIENTS)
    line.prefetch([1])
    with pytest.raises(FedError, match="the row is damaged"):
        line.take()
    with pytest.raises(FedError, match="no rows to take"):
        line.take()
    line.prefetch([1])
    time.sleep(0.05)
    with pytest.raises(FedError, match="the row is damaged"):
        line.deliver([1], rows(1))
    line.close()


def test_what_could_not_be_read_harms_nothing_that_is_delivered(vault):
    gate = threading.Event()

    def failing(ids):
        assert gate.wait(20)
        raise FedError("the row is damaged")

    line = open_pipeline(altered(vault, read=failing), CLIENTS)
    line.prefetch([1, 2])
    line.deliver([2, 3], rows(2))
    gate.set()
    with pytest.raises(FedError, match="the row is damaged"):
        line.wait()
    line.close()
    assert vault.read([1, 2, 3])["b"].tolist() == [0, 1, 1]


def test_what_could_not_be_written_is_refused_until_it_is_delivered_again(vault):
    fails = [False, True]

    def write(ids, new):
        if fails.pop():
            raise FedError("the disk is full")
        vault.write(ids, new)

    line = open_pipeline(altered(vault, write=write), CLIENTS)
    line.prefetch([1, 2, CLIENTS])
    line.take()
    line.prefetch([2, 3])
    line.deliver([1, 2, CLIENTS], rows(3))
    with pytest.raises(FedError, match="the disk is full"):
        line.wait()
    line.wait()
    assert line.take()["b"].tolist() == [1, 0], "these rows were passed on without the store"
    line.prefetch([CLIENTS, 1])
    with pytest.raises(FedError, match=r"could not be written: got \[1\]; deliver them again"):
        line.take()
    line.deliver([1, 2], rows(2))
    line.prefetch([CLIENTS, 1])
    assert line.take()["b"].tolist() == [0, 1]
    assert vault.read([1, 2, 3])["b"].tolist() == [1, 1, 0]
    line.close()


def test_a_round_waits_for_reading_and_not_for_writing(vault):
    gate = threading.Event()

    def write(ids, new):
        assert gate.wait(20)
        vault.write(ids, new)

    line = open_pipeline(altered(vault, write=write), CLIENTS)
    line.prefetch([1, 2])
    line.take()
    line.prefetch([2, 3])
    line.deliver([1, 2], rows(2))
    assert line.take()["b"].tolist() == [1, 0]
    assert vault.read([1, 2])["b"].tolist() == [0, 0]
    line.prefetch([1, 3, 2])
    line.deliver([2, 3], rows(2, 7))
    gate.set()
    assert line.take()["b"].tolist() == [1, 7, 7]
    line.close()


def test_rows_that_cannot_be_brought_to_the_host_are_told_once_and_void_the_next_cohort(vault):
    class Failed:
        def __array__(self, *_, **__):
            raise RuntimeError("out of memory")

    line = open_pipeline(vault, CLIENTS)
    line.prefetch([1])
    line.take()
    line.prefetch([1])
    line.deliver([1], {"a": Failed(), "b": Failed()})
    with pytest.raises(RuntimeError, match="out of memory"):
        line.take()
    line.wait()
    line.prefetch([1])
    with pytest.raises(FedError, match="deliver them again"):
        line.take()
    line.close()


def test_wait_finishes_every_write_and_close_raises_the_last_error(vault):
    def slow(ids, new):
        time.sleep(0.05)
        vault.write(ids, new)

    line = open_pipeline(altered(vault, write=slow), CLIENTS)
    for value in range(1, 4):
        line.deliver([5], rows(1, value))
    line.wait()
    assert vault.read([5])["b"].tolist() == [3]
    line.deliver([5, 5], rows(2))
    with pytest.raises(FedError, match="twice at once"):
        line.close()
    assert not any(thread.name.startswith("fedjax_sim-rows") for thread in threading.enumerate())
