"""Files of ours that say anything, well-formed and with checksums that are right: whoever made them
up is told, and believed in nothing.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from fuzz import Tree, command, each, judge, mutated, some
from hypothesis.strategies import SearchStrategy
from stores import blank, filled
from vaults import CLIENTS, LIKE, rows

from fedjax_sim.cli import main
from fedjax_sim.core.errors import FedError
from fedjax_sim.core.files import DEPTH, parse_json
from fedjax_sim.engine.host.rows import open_row_store
from fedjax_sim.persistence import manifest
from fedjax_sim.persistence.checkpoint import open_store, state_hash
from fedjax_sim.simulation.history import from_jsonl
from fedjax_sim.simulation.nonfinite_report import read
from fedjax_sim.simulation.writers import csv_writer, jsonl_writer

COUNTS = [pytest.param(0, 40, id="drawn-40")]
COUNTS += [
    pytest.param(start, 150, id=f"drawn-150-{start}", marks=pytest.mark.slow)
    for start in some(range(1, 5), 1)
]
"""Where drawing begins, and how many are drawn."""
EVERY = pytest.mark.parametrize(("start", "count"), COUNTS)


def told(do: Callable[[], Any]) -> bool:
    """Whether something is taken. What is not must be told in three parts, on one line."""
    said = ""
    try:
        do()
    except FedError as error:
        said = str(error)
    assert re.fullmatch(r"|\S.*: got .+; .+", said), said
    assert said.isprintable()
    return not said


def text(made: Any) -> str:
    return json.dumps(made, default=str)


def wrong(right: Tree) -> SearchStrategy[Tree]:
    """What JSON can say of what somebody has done to this."""
    return mutated([right]).map(lambda made: json.loads(text(made)))


# --------------------------------------------------------------------------------------------- data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "set"
    assert main(["data", "prepare", "generated", "--clients", "3", "--out", str(folder)]) == 0
    return folder


@EVERY
def test_cards_of_data(start: int, count: int, prepared: Path, tmp_path: Path):
    folder, held = (
        Path(shutil.copytree(prepared, tmp_path / "set")),
        json.loads((prepared / "card.json").read_text()),
    )
    seen = set()

    def one(card: Tree) -> None:
        (folder / "card.json").write_text(text(card))
        for more in ([], ["--verify"]):
            seen.add(judge(command("data", "describe", str(folder), *more)))

    each(wrong(held), count, start, one)
    assert seen == {True, False}


def test_a_card_of_too_few_labels(prepared: Path, tmp_path: Path):
    folder = Path(shutil.copytree(prepared, tmp_path / "set"))
    (folder / "card.json").write_text(
        text(json.loads((folder / "card.json").read_text()) | {"classes": 1})
    )
    done = command("data", "describe", str(folder))
    assert not judge(done)
    assert "labels lie in 0 .. 0: got 0 .. " in done.errors


def test_objects_in_data_are_not_brought_to_life(prepared: Path, tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trap",)

    folder = Path(shutil.copytree(prepared, tmp_path / "set"))
    np.save(folder / "train.y.npy", np.array([Evil()], object), allow_pickle=True)
    card = json.loads((folder / "card.json").read_text())
    card["files"]["train.y.npy"]["bytes"] = (folder / "train.y.npy").stat().st_size
    (folder / "card.json").write_text(json.dumps(card))
    assert not judge(command("data", "describe", str(folder)))
    assert not (tmp_path / "trap").exists()


# --------------------------------------------------------------------------------------------- runs

ROWS = {
    "rows": [
        {"round": 1, "loss": 2.0, "test/accuracy": 0.5, "seconds": 0.25},
        {"round": 2, "loss": None, "seconds": 0.5},
    ]
}


@EVERY
def test_rows_of_a_run(start: int, count: int, tmp_path: Path):
    path, seen = tmp_path / "metrics.jsonl", set()

    def one(made: Tree) -> None:
        lines = made.get("rows")
        path.write_text(
            "".join(text(line) + "\n" for line in (lines if isinstance(lines, list) else [lines]))
        )
        before = path.read_bytes()
        seen.add(taken := told(lambda: from_jsonl(path)))
        gone_on = told(lambda: jsonl_writer(path, 1).close())
        assert gone_on or not taken
        assert gone_on or path.read_bytes() == before

    each(wrong(ROWS), count, start, one)
    assert seen == {True, False}


def test_tables_of_a_run(tmp_path: Path):
    path, draw, seen = tmp_path / "metrics.csv", random.Random(0), set()
    odd = [
        b"\n",
        b",",
        b'"',
        b"\0",
        b"\xff",
        b"\r",
        b"-1",
        b"9" * 5000,
        b"x" * 200_000,
        "\u00b2".encode(),
    ]
    for _ in range(300):
        content = bytearray(b"round,loss\n1,2.0\n2,1.5\n")
        for _ in range(draw.choice([1, 2, 5])):
            place = draw.randrange(len(content))
            content[place : place + draw.choice([0, 1])] = draw.choice(odd)
        path.write_bytes(content)
        seen.add(taken := told(lambda: csv_writer(path, 1).close()))
        assert taken or path.read_bytes() == content
    assert seen == {True, False}


@EVERY
def test_files_of_refused_rounds(start: int, count: int, tmp_path: Path):
    state, path, seen = (
        tmp_path / "run" / "nonfinite-2",
        tmp_path / "run" / "nonfinite-2.json",
        set(),
    )
    state.mkdir(parents=True)
    (state / "config.toml").write_text("rounds = 2\n")

    def one(made: Tree) -> None:
        path.write_text(text(made))
        if taken := told(lambda: read(path)):
            assert read(path).folder.parent == path.parent
        seen.add(taken)

    each(
        wrong(
            {
                "round": 2,
                "clients": [{"id": 3, "name": "somebody"}, {"id": 4}],
                "state": "nonfinite-2",
            }
        ),
        count,
        start,
        one,
    )
    assert seen == {True, False}


@pytest.mark.parametrize(
    "state", ["..", "../run/nonfinite-2", "/", "", ".", "nonfinite-2/", "a\0b", 3, ["nonfinite-2"]]
)
def test_a_refused_round_lies_beside_its_file(state: Any, tmp_path: Path):
    (tmp_path / "config.toml").write_text("rounds = 2\n")
    path = tmp_path / "run" / "nonfinite-2.json"
    (path.parent / "nonfinite-2").mkdir(parents=True)
    for folder in (path.parent, path.parent / "nonfinite-2"):
        (folder / "config.toml").write_text("rounds = 2\n")
    path.write_text(json.dumps({"round": 2, "clients": [], "state": state}))
    with pytest.raises(
        FedError, match=r"this file does not describe a rejected round: got .*state"
    ):
        read(path)


# -------------------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    filled(folder).close()
    return folder


@EVERY
def test_records_of_checkpoints(start: int, count: int, checkpoints: Path, tmp_path: Path):
    """Whatever is believed of a record, the values are those that were saved, or nothing is
    restored.
    """
    folder, seen = Path(shutil.copytree(checkpoints, tmp_path / "run")), set()
    (path,) = (
        path
        for path in (folder / "2").rglob("_CHECKPOINT_METADATA")
        if b"seal" in path.read_bytes()
    )
    held = json.loads(path.read_text())
    record = held["custom_metadata"]["fedjax_sim"]

    def one(made: Tree) -> None:
        sealed = {**made, "seal": manifest._seal(made.get("manifest"), made.get("metadata"))}
        path.write_text(text({**held, "custom_metadata": {"fedjax_sim": sealed}}))
        store = open_store(folder)
        if told(lambda: store.restore(blank())):
            found = store.restore(blank())
            assert state_hash(found.state) == state_hash(tiny.after(found.step))
            seen.add(found.step)
        else:
            seen.add(None)
        told(store.metadata)

    each(wrong({"manifest": record["manifest"], "metadata": record["metadata"]}), count, start, one)
    assert seen == {None, 1, 2}


@EVERY
def test_snapshots_of_client_memory(start: int, count: int, tmp_path: Path):
    vault, seen = open_row_store(tmp_path / "vault", LIKE, CLIENTS), set()
    vault.write(np.arange(7), rows(np.random.default_rng(0), 7))
    description = vault.snapshot(1)
    vault.close()
    (path,) = (tmp_path / "vault").glob("*.index")
    line, _, body = path.read_bytes().partition(b"\n")
    path.unlink()
    draw = random.Random(start)

    def one(made: Tree) -> None:
        numbers = bytearray(body)
        if draw.random() < 0.3:
            numbers[draw.randrange(len(numbers))] ^= 1 << draw.randrange(8)
        content = text(made.get("header")).encode() + b"\n" + numbers
        crc = zlib.crc32(content)
        fresh = path.with_name(f"round-1-{crc:08x}.index")
        fresh.write_bytes(content)
        said = made.get("description")
        believed = (
            {**said, "index": fresh.name, "crc32": crc, "bytes": len(content)}
            if isinstance(said, dict)
            else said
        )
        seen.add(told(lambda: restored(tmp_path / "vault", believed)))
        fresh.unlink()

    each(wrong({"header": json.loads(line), "description": description}), count, start, one)
    assert seen == {True, False}


def restored(folder: Path, description: Any) -> None:
    vault = open_row_store(folder, LIKE, CLIENTS)
    try:
        vault.restore(description)
        vault.read(np.arange(CLIENTS + 3))
    finally:
        vault.close()


# ------------------------------------------------------------------------------------------ nesting


def test_what_is_nested_too_deep_is_told_before_anybody_gets_lost_in_it():
    deepest = "[" * DEPTH + "]" * DEPTH
    assert text(parse_json(deepest)) == deepest
    for many in (DEPTH + 1, 10**6):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            with pytest.raises(ValueError, match=f"more than {DEPTH} deep"):
                parse_json(opening * many + "1" + closing * many)
