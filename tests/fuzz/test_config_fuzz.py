"""Configurations by the thousand, each checked as the command line does: it is valid, or told in
sentences; no traceback, no end of
patience, and nothing written."""

from __future__ import annotations

import collections
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz import (
    BASES,
    SCHEMA,
    Late,
    Outcome,
    Tree,
    command,
    drawn,
    each,
    judge,
    mutated,
    some,
    written,
)
from hypothesis import Phase

from fedjax_sim.experiments.config import ConfigErrors, entries_by_kind, load_config
from fedjax_sim.experiments.config.json_schema import schema
from fedjax_sim.experiments.config.model import run_model


@pytest.fixture(scope="module", autouse=True)
def one_model() -> Iterator[None]:
    """The model of a file is made once and not for each file, a third of the time."""
    made = run_model(entries_by_kind())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[load_config.__module__], "run_model", lambda known: made)
        yield


KINDS = {"drawn": drawn(), "odd": drawn(odd=True), "mutated": mutated()}


def checked(kind: str, count: int, start: int, folder: Path) -> collections.Counter[str]:
    """How many examples of a kind were valid, and how many were refused."""
    tally: collections.Counter[str] = collections.Counter()
    path = folder / "c.toml"

    def one(made: Tree) -> None:
        tally["valid" if judge(command("check", written(made, path))) else "refused"] += 1

    each(KINDS[kind], count, start, one)
    assert [path.name for path in folder.iterdir()] == ["c.toml"]
    return tally


@pytest.mark.parametrize(("kind", "count"), [("drawn", 15), ("odd", 40), ("mutated", 60)])
def test_whatever_a_file_says_is_valid_or_told(kind: str, count: int, tmp_path: Path):
    tally = checked(kind, count, 0, tmp_path)
    assert tally.total() >= count
    assert min(tally["valid"], tally["refused"]) > 0, tally


@pytest.mark.slow
@pytest.mark.parametrize("start", some(range(1, 7), 2))
@pytest.mark.parametrize(("kind", "count"), [("drawn", 120), ("odd", 170), ("mutated", 220)])
def test_many_more_are_valid_or_told(kind: str, count: int, start: int, tmp_path: Path):
    assert checked(kind, count, start, tmp_path).total() >= count


def run_two_rounds(count: int, start: int, folder: Path) -> collections.Counter[str]:
    """Of files that are valid and whose data are small, each runs."""
    tally: collections.Counter[str] = collections.Counter()

    def one(made: Tree) -> None:
        path, out = written({**made, "rounds": 2}, folder / "c.toml"), folder / "run"
        shutil.rmtree(out, ignore_errors=True)  # of one that failed
        if not judge(command("check", path)):
            tally["refused"] += 1
            return
        done = command("run", path, "--out", str(out))
        if done.status == 2:  # of these nobody knows before
            last = Outcome(2, done.out, done.errors.splitlines()[-1])
            assert not judge(last)
            assert re.search(
                r"does not fit into a device's memory|"
                r"was rejected, because its result was not finite",
                last.errors,
            ), done
            tally["stopped"] += 1
            return
        assert done.status == 0, done
        assert command("evaluate", str(out)).status == 0
        tally["ran"] += 1

    each(drawn(), count, start, one, [Phase.generate])  # to make one smaller would take minutes
    return tally


@pytest.mark.slow
def test_what_is_valid_runs(tmp_path: Path):
    assert run_two_rounds(2, 0, tmp_path)["ran"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("start", some(range(1, 9), 1))
def test_much_that_is_valid_runs(start: int, tmp_path: Path):
    assert run_two_rounds(25, start, tmp_path)["ran"] >= 5


# ------------------------------------------------------------------------------- the fuzzing itself


def test_the_files_that_are_damaged_are_valid(tmp_path: Path):
    for base in BASES:
        load_config(written(base, tmp_path / "c.toml"))


def test_the_schema_that_is_drawn_from_is_the_committed_one():
    assert schema() == SCHEMA


def test_a_case_that_raises_or_takes_too_long_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from fedjax_sim.cli import inspect

    path = written(BASES[0], tmp_path / "c.toml")

    def forever(*arguments: Any) -> None:
        while True:
            pass

    monkeypatch.setattr("fuzz.SECONDS", 0.2)
    monkeypatch.setattr(inspect, "check", forever)
    with pytest.raises(Late):
        command("check", path)
    monkeypatch.setattr(inspect, "check", lambda asked: [][1])
    with pytest.raises(IndexError):
        command("check", path)
    monkeypatch.setattr(
        inspect, "check", lambda asked: (_ for _ in ()).throw(ConfigErrors("no three parts"))
    )
    with pytest.raises(AssertionError):
        judge(command("check", path))
