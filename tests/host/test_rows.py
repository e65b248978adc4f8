import json
import threading

import jax
import numpy as np
import pytest
from vaults import BLANK, CLIENTS, LIKE, filled, holds, put, row, rows, some

from fedjax_sim.core.errors import FedError
from fedjax_sim.engine.host.rows import open_row_store
from fedjax_sim.engine.host.rows.slots import PAGE, SlotTable

# ---------------------------------------------------------------------------------------- the model


class Twin:
    """A row store and a dictionary with the same content.

    A row is identified by its client and a random number of its write.
    """

    def __init__(self, folder, seed):
        self.folder, self.rng = folder, np.random.default_rng(seed)
        self.vault = open_row_store(folder, LIKE, CLIENTS)
        self.model, self.writing, self.round = {}, {}, 0
        self.kept, self.latest, self.dropped = {}, {}, {}

    def write(self):
        ids = some(self.rng)
        new = rows(self.rng, len(ids))
        self.vault.write(ids, new)
        put(self.model, ids, new)
        self.writing.update({int(client): self.rng.random() for client in ids if client < CLIENTS})

    def read(self):
        ids = self.rng.integers(0, CLIENTS + 2, 9)
        back = self.vault.read(ids)
        assert jax.tree.structure(back) == jax.tree.structure(LIKE)
        assert [row(back, i) for i in range(9)] == [
            self.model.get(client, BLANK) for client in ids.tolist()
        ]

    def snapshot(self):
        self.round += int(self.rng.integers(0, 2))
        saved = json.loads(json.dumps(self.vault.snapshot(self.round)))
        self.kept[saved["index"]] = (saved, dict(self.model), dict(self.writing))
        self.latest[self.round] = saved["index"]

    def restore(self):
        if self.kept:
            saved, model, writing = list(self.kept.values())[self.rng.integers(len(self.kept))]
            self.vault.restore(saved)
            self.model, self.writing, self.round = dict(model), dict(writing), saved["round"]
            self.latest[self.round] = saved["index"]

    def keep(self):
        rounds = {saved["round"] for saved, *_ in self.kept.values() if self.rng.random() < 0.6}
        self.vault.keep(rounds)
        for name, (saved, *_) in list(self.kept.items()):
            if saved["round"] not in rounds or self.latest.get(saved["round"], name) != name:
                self.dropped[name] = self.kept.pop(name)[0]

    def open_again(self):
        self.vault.close()
        self.vault = open_row_store(self.folder, LIKE, CLIENTS)
        self.model, self.writing, self.latest = {}, {}, {}
        self.restore()

    def check(self):
        assert holds(self.vault, self.model)
        in_use = {one for _, _, writing in self.kept.values() for one in writing.items()} | set(
            self.writing.items()
        )
        facts = self.vault.facts()
        assert (facts["clients"], facts["rows"]) == (len(self.model), len(in_use)), (
            "no unused row is kept"
        )


@pytest.mark.parametrize("seed", range(12))
def test_a_vault_is_a_dictionary_with_a_memory(tmp_path, seed):
    twin = Twin(tmp_path, seed)
    doings = [twin.write, twin.read, twin.snapshot, twin.restore, twin.keep, twin.open_again]
    for _ in range(120):
        twin.rng.choice(doings, p=[0.4, 0.25, 0.15, 0.1, 0.06, 0.04])()
        twin.check()
    for name, saved in twin.dropped.items():
        if name not in twin.kept:
            with pytest.raises(FedError, match="cannot be read"):
                twin.vault.restore(saved)
    for saved, model, _ in twin.kept.values():
        twin.vault.restore(saved)
        assert holds(twin.vault, model)
    twin.vault.close()


def test_rows_keep_their_bits_dtypes_and_shapes(tmp_path):
    vault = open_row_store(tmp_path, LIKE, CLIENTS)
    new = rows(np.random.default_rng(0), 3)
    vault.write([5, 0, 59], {**new, "c": jax.device_put(new["c"])})
    back = vault.read(np.array([59, 7, 5, 5]))
    assert [(leaf.dtype, leaf.shape[1:]) for leaf in jax.tree.leaves(back)] == [
        (np.asarray(leaf).dtype, np.shape(leaf)) for leaf in jax.tree.leaves(LIKE)
    ]
    assert [row(back, i) for i in range(4)] == [row(new, 2), BLANK, row(new, 0), row(new, 0)]
    back["c"][:] = 0
    assert row(vault.read([59]), 0) == row(new, 2), "what was read is the caller's own"
    vault.close()


def test_the_row_before_the_first_round_belongs_to_the_snapshot(tmp_path):
    saved, model = filled(tmp_path, (4,))[0]
    vault = open_row_store(tmp_path, jax.tree.map(np.zeros_like, LIKE), CLIENTS)
    vault.restore(saved)
    assert holds(vault, model)
    vault.close()


def test_a_hundred_million_clients_cost_what_takes_part(tmp_path):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    before, rng = resident(), np.random.default_rng(0)
    vault = open_row_store(tmp_path, np.zeros(4, np.float32), 10**8)
    assert resident() - before < 10 * 2**20
    ids = rng.choice(10**8, 20_000, replace=False)
    ids[0] = 10**8 - 1
    vault.write(ids, rng.normal(size=(20_000, 4)).astype(np.float32))
    vault.restore(vault.snapshot(1))
    assert resident() - before < 50 * 2**20
    assert vault.facts()["bytes"] < 4 * 2**20
    others = np.setdiff1d(rng.integers(0, 10**8, 1000), ids)
    assert vault.read(ids[:100]).all()
    assert not vault.read(others).any()
    vault.close()


def test_neighbours_share_a_page_of_the_directory():
    table = SlotTable(10**8)
    table.grow(160)
    table.commit(np.arange(320, 480)[::-1], table.take(160), np.zeros(160, np.uint32))
    assert table.used == 1 + 160 // PAGE
    assert table.find(np.array([479, 320, 319, 480])).tolist() == [0, 159, -1, -1]


def test_calls_of_several_threads_take_turns(tmp_path):
    """Every row repeats one number; a reader sees complete rows, never older than before."""
    vault, stop, seen = open_row_store(tmp_path, np.zeros(5000), 20), threading.Event(), []

    def look():
        last = np.zeros(20)
        while not stop.is_set():
            back = vault.read(np.arange(20))
            seen.append(bool((back == back[:, :1]).all() and (back[:, 0] >= last).all()))
            last = back[:, 0].copy()

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1, 150):
        vault.write(
            np.arange(number % 7, 20, 3),
            np.full((len(range(number % 7, 20, 3)), 5000), float(number)),
        )
        if number % 50 == 0:
            vault.snapshot(number)
            vault.keep([number])
    stop.set()
    for thread in threads:
        thread.join()
    assert seen
    assert all(seen)
    vault.close()


# ----------------------------------------------------------------------------------------- mistakes


def misfits():
    yield "shape", {**LIKE, "c": np.zeros(8, np.float32)}, ["at c:", "float32[7]", "float32[8]"]
    yield "dtype", {**LIKE, "c": np.zeros(7, np.float64)}, ["at c:", "float32[7]", "float64[7]"]
    yield (
        "missing",
        {**LIKE, "more": np.zeros(2)},
        ["at more:", "nothing in the folder", "float64[2]"],
    )
    yield (
        "extra",
        {"c": LIKE["c"], "deep": LIKE["deep"]},
        ["at flag:", "bool[2] in the folder", "nothing in this configuration"],
    )
    yield (
        "renamed",
        {("d" if name == "c" else name): leaf for name, leaf in LIKE.items()},
        ["at d:", "c float32[7]"],
    )


@pytest.mark.parametrize(
    ("like", "words"), [pytest.param(*rest, id=name) for name, *rest in misfits()]
)
def test_a_folder_with_other_rows_is_refused_with_the_leaf(tmp_path, like, words):
    saved = filled(tmp_path / "a")[-1][0]
    with pytest.raises(FedError) as caught:
        open_row_store(tmp_path / "a", like, CLIENTS)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)
    with_other_rows = open_row_store(tmp_path / "b", like, CLIENTS)
    (tmp_path / "a" / saved["index"]).rename(tmp_path / "b" / saved["index"])
    with pytest.raises(FedError, match=words[0]):
        with_other_rows.restore(saved)
    with_other_rows.close()


def test_a_folder_that_cannot_be_ours_is_refused(tmp_path):
    saved = filled(tmp_path / "a")[-1][0]
    with pytest.raises(FedError, match=r"another population: got 60 clients in .*, 61 here"):
        open_row_store(tmp_path / "a", LIKE, CLIENTS + 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(FedError, match="cannot be used: got FileExistsError"):
        open_row_store(tmp_path / "file", LIKE, CLIENTS)
    vault = open_row_store(tmp_path / "a", LIKE, CLIENTS)
    with pytest.raises(FedError, match="in use"):
        open_row_store(tmp_path / "a", LIKE, CLIENTS)
    vault.close()
    vault.close()
    for call in (lambda: vault.read([0]), vault.facts, lambda: vault.restore(saved)):
        with pytest.raises(FedError, match="is closed"):
            call()
    open_row_store(tmp_path / "a", LIKE, CLIENTS).close()


@pytest.mark.parametrize(
    "like",
    [(), {"c": np.zeros((0, 3))}, {"c": np.array(["a", None])}],
    ids=["empty", "no bytes", "objects"],
)
def test_rows_that_are_none_are_refused(tmp_path, like):
    with pytest.raises(FedError, match="a client's row"):
        open_row_store(tmp_path, like, CLIENTS)


def test_mistakes_change_nothing(tmp_path):
    saved, model = filled(tmp_path)[-1]
    vault, new = open_row_store(tmp_path, LIKE, CLIENTS), rows(np.random.default_rng(5), 2)
    vault.restore(saved)
    mistakes = {
        "twice at once": ([3, 3], new),
        "must not be negative": ([3, -1], new),
        "by their ids": ([3.0, 4.0], new),
        "at c: got float64": ([3, 4], {**new, "c": new["c"].astype(np.float64)}),
        "at c: got float32.2, 6.": ([3, 4], {**new, "c": new["c"][:, 1:]}),
        r"give float32\[3, 7\]": ([3, 4, 5], new),
        "do not have the tree structure of the row store": ([3, 4], {"c": new["c"]}),
    }
    for words, given in mistakes.items():
        with pytest.raises(FedError, match=words):
            vault.write(*given)
    for words, wrong in {
        "does not describe": {},
        "is damaged": {**saved, "crc32": 1},
        "describe a": {"index": "../lock"},
    }.items():
        with pytest.raises(FedError, match=words):
            vault.restore(wrong)
    assert holds(vault, model)
    vault.close()
