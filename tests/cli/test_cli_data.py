"""The verbs about data, and the numbers and pictures of `data describe`."""

import os
from pathlib import Path

import numpy as np
import pytest
import source_files as files
from commands import python
from PIL import Image

from fedjax_sim.cli import main
from fedjax_sim.data import open_prepared, population, read_card
from fedjax_sim.data.label_statistics import label_spread
from fedjax_sim.data.sources import REGISTRY
from fedjax_sim.data.sources.options import keywords
from fedjax_sim.report.clients import plot_labels, plot_sizes


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")


def said(capsys):
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize(
    "words", [["data"], ["data", "prepare"], ["data", "describe"], ["data", "formats"]], ids=str
)
def test_every_verb_has_help(words, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--help"])
    assert f"usage: fedjax-sim {' '.join(words)}" in capsys.readouterr().out


def test_data_alone_prints_its_help(capsys):
    assert main(["data"]) == 2
    out = capsys.readouterr().out
    assert out.startswith("usage: fedjax-sim data")
    assert all(verb in out for verb in ("prepare", "describe", "formats"))


CODE = """
import sys
from fedjax_sim.cli import main
try: main(['data', 'prepare', '--help'])
except SystemExit: print(sorted(sys.modules))
"""


def test_help_imports_nothing_slow():
    loaded = python(CODE).rpartition("[")[2]
    for slow in ("jax", "numpy", "rich", "sqlite3", "h5py", "PIL", "fedjax_sim.data"):
        assert f"'{slow}'" not in loaded


def test_prepare_and_describe(tmp_path, capsys):
    source, out = files.leaf(tmp_path / "leaf"), tmp_path / "out"
    assert (
        main(["data", "prepare", str(source), "shape=2,2", "--out", str(out), "--name", "letters"])
        == 0
    )
    text = said(capsys)
    assert f"wrote {out}: 3 clients, 9 training examples, 3 test, 4 central; " in text
    assert f"fedjax-sim data describe {out}" in text
    assert open_prepared(out).train.x.shape == (9, 2, 2)
    assert (
        main(["data", "describe", str(out), "--verify", "--out", str(tmp_path / "pictures")]) == 0
    )
    text = said(capsys)
    for words in (
        "name letters",
        f"source {source}",
        "clients 3",
        "9 for training, 3 for the clients' tests, 4 for a global test set",
        "x float32[2, 2], y int32",
        "1 (smallest), 1.4 (10 %), 3 (median), 4.6 (90 %), 5 (largest); mean 3",
        "labels 3, of which a client has",
        "label entropy",
        "all files have the hashes",
    ):
        assert words in text, words
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "labels.png",
        "sizes.png",
    ]


def test_options_may_stand_anywhere(tmp_path, capsys):
    source, held = files.table(tmp_path / "t.csv"), files.table(tmp_path / "h.csv", "test")
    words = [
        "data",
        "prepare",
        str(source),
        "label=kind",
        "--out",
        str(tmp_path / "out"),
        "client=who",
        f"test={held}",
    ]
    assert main(words) == 0
    assert tuple(open_prepared(tmp_path / "out").train.names) == ("abe", "kim", "zoe")
    dealt = [
        *words[:4],
        "--out",
        str(tmp_path / "dealt"),
        "--clients",
        "2",
        "--partition",
        "dirichlet",
        "alpha=5",
        "--seed",
        "3",
    ]
    assert (
        main([*dealt, "--test-fraction", "0.3", "client=who", "--global-test-fraction", "0.2"]) == 0
    )
    made = read_card(tmp_path / "dealt")["about"]["made"]
    assert made["partition_options"] == {"alpha": 5}
    assert (made["clients"], made["seed"], made["test_fraction"], made["global_test_fraction"]) == (
        2,
        3,
        0.3,
        0.2,
    )


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["prepare", "{root}/none", "--out", "{root}/x"], "the source must exist"),
        (["prepare", "{root}/t.csv", "--out", "{root}/x"], "the format csv needs the option label"),
        (
            ["prepare", "{root}/t.csv", "label=kind", "features=a,b", "--out", "{root}/x"],
            "does not record the owner of each example",
        ),
        (["prepare", "{root}/t.csv", "label=kind", "--out", "{root}"], "must not exist yet"),
        (
            ["prepare", "{root}/t.csv", "label=kind", "--out", "{root}/x", "--format", "cvs"],
            "did you mean 'csv'",
        ),
        (["describe", "{root}"], "no prepared data set: got no card.json"),
        (["describe", "{root}/set"], "train.y.npy must have"),
    ],
)
def test_what_the_user_can_mend_is_said_in_one_sentence(words, wrong, tmp_path, capsys):
    files.table(tmp_path / "t.csv")
    assert (
        main(["data", "prepare", "generated", "--clients", "3", "--out", str(tmp_path / "set")])
        == 0
    )
    os.truncate(tmp_path / "set" / "train.y.npy", 600)
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert main(["data", *(word.format(root=tmp_path) for word in words)]) == 2
    streams = capsys.readouterr()
    assert wrong in streams.err
    assert streams.err.count("\n") == 1
    assert streams.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "words", [["prepare"], ["prepare", "x"], ["dance"], ["describe", "x", "a=b"]], ids=str
)
def test_wrong_words_are_refused(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["data", *words])
    assert list(tmp_path.iterdir()) == []


def test_formats_are_listed_with_their_options(capsys):
    assert main(["data", "formats"]) == 0
    text = said(capsys)
    for name, reader in REGISTRY.items():
        assert f"{name} {reader.summary}" in text
        assert all(f" {option}" in text for option in keywords(reader.read))
    assert text.count("..") == 0


def test_text_is_described_without_labels(tmp_path, capsys):
    source = files.tff(tmp_path / "t.sqlite", anne=[b"To be"], bob=[b"or not"])
    assert main(["data", "prepare", str(source), "x=snippets", "--out", str(tmp_path / "out")]) == 0
    assert (
        main(["data", "describe", str(tmp_path / "out"), "--out", str(tmp_path / "pictures")]) == 0
    )
    assert "labels none: a client's examples are the characters of a text" in said(capsys)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["sizes.png"]


# ------------------------------------------------------------------------------------------- spread


def some(clients=50, classes=7, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, clients)
    y = np.concatenate(
        [rng.choice(classes, n, p=rng.dirichlet(np.full(classes, 0.3))) for n in sizes]
    ).astype(np.int32)
    return population(np.zeros(len(y)), y, np.cumsum([0, *sizes]))


def plain_entropy(labels):
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return -np.sum(shares * np.log(shares))


@pytest.mark.parametrize("entries", [10, 10**6])
def test_spread_is_that_of_a_plain_count(monkeypatch, entries):
    monkeypatch.setattr("fedjax_sim.data.label_statistics.ENTRIES", entries)
    data = some()
    each = np.split(data.y, data.offsets[1:-1])
    found = label_spread(data, 7, groups=50)
    np.testing.assert_array_equal(found.counts, np.bincount(data.y, minlength=7))
    assert found.classes == pytest.approx(np.mean([len(set(y)) for y in each]))
    assert found.entropy == pytest.approx(np.mean([plain_entropy(y) for y in each]))
    assert found.overall == pytest.approx(plain_entropy(data.y))
    np.testing.assert_allclose(found.shares, [np.bincount(y, minlength=7) / len(y) for y in each])
    assert not found.grouped


def test_many_clients_are_sorted_and_grouped():
    data = some(clients=400)
    found = label_spread(data, 7, groups=20)
    assert found.grouped
    assert found.shares.shape == (20, 7)
    np.testing.assert_allclose(found.shares.sum(1), 1)
    every = np.stack(
        [np.bincount(y, minlength=7) / len(y) for y in np.split(data.y, data.offsets[1:-1])]
    )
    np.testing.assert_allclose(found.shares.mean(0), every.mean(0))  # groups are equally large
    top = found.shares.argmax(1)
    assert list(top) == sorted(top)
    inner = [i for i in range(19) if top[i] == top[i + 1] and (i == 0 or top[i - 1] == top[i])]
    assert sum(found.shares[i].max() >= found.shares[i + 1].max() for i in inner) >= len(inner) - 1


def test_what_has_no_single_label_has_no_spread():
    data = some(3)
    assert label_spread(data._replace(y=np.stack([data.y, data.y], 1)), 7) is None
    assert label_spread(data._replace(y=data.y.astype(np.float32)), 7) is None
    assert label_spread(data._replace(y=()), 7) is None


def colours(path):
    with Image.open(path) as picture:
        return len(picture.convert("RGB").getcolors(10**6))


@pytest.mark.parametrize(("clients", "classes"), [(1, 1), (5, 3), (400, 7), (30, 300)])
def test_pictures_are_drawn(tmp_path, clients, classes):
    data = some(clients, classes)
    assert colours(plot_labels(label_spread(data, classes), tmp_path / "deep" / "labels.png")) > 10
    for name, sizes in {
        "same": np.full(9, 4),
        "wide": np.array([1, 10, 1000]),
        "one": np.array([1]),
        "some": data.sizes,
    }.items():
        assert colours(plot_sizes(sizes, tmp_path / f"{name}.png")) > 10


@pytest.mark.parametrize(
    ("name", "clients"), [("mnist.npz", 539), ("uci_har.npz", 21), ("shakespeare_roles.npz", 1344)]
)
def test_the_commands_that_tasks_suggest(name, clients, tmp_path, capsys):
    from shared_data import shared

    out = Path(tmp_path / "data" / "set")
    assert main(["data", "prepare", str(shared(name)), "--out", str(out)]) == 0
    assert f"{clients:,} clients" in capsys.readouterr().out
    assert open_prepared(out).train.clients == clients
