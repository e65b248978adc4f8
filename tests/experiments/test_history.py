import json
import math
import sys

import numpy as np
import pytest

from fedjax_sim.core.errors import FedError
from fedjax_sim.simulation.history import (
    from_jsonl,
    history,
    record,
    to_jsonl,
)
from fedjax_sim.simulation.writers import csv_writer, jsonl_writer, tensorboard_writer

ROWS = {
    1: {"loss": 2.5},
    2: {"loss": 1.25, "test/accuracy": 0.5},
    3: {"loss": 0.1},
    4: {"loss": 1e-9, "test/accuracy": 0.75},
}


def filled(rows=ROWS):
    log = history()
    for round_, row in rows.items():
        record(log, round_, row)
    return log


def fill(writer, rows=ROWS):
    for round_, row in rows.items():
        writer.write(round_, row)
    writer.close()


def test_get_gives_the_rounds_that_have_a_number():
    rounds, values = filled().get("test/accuracy")
    assert rounds.tolist() == [2, 4]
    assert values.tolist() == [0.5, 0.75]
    assert (rounds.dtype, values.dtype) == (np.int64, np.float64)


def test_names_and_latest():
    log = filled()
    assert log.names() == ("loss", "test/accuracy")
    assert log.latest("loss") == 1e-9
    assert log.latest("nobody") is None
    assert filled({1: {"a": 1.0}, 2: {}}).latest("a") == 1.0


def test_get_of_an_unknown_name_suggests_one():
    with pytest.raises(FedError, match="did you mean 'test/accuracy'"):
        filled().get("test/acuracy")
    with pytest.raises(FedError, match="run some rounds"):
        history().get("loss")


def test_rounds_come_in_order():
    with pytest.raises(FedError, match="round 4 after round 4"):
        record(filled(), 4, {})


def test_a_recorded_row_is_ours():
    row, log = {"loss": 1.0}, history()
    record(log, 1, row)
    row["loss"] = 2.0
    assert log.rows[1] == {"loss": 1.0}


def test_jsonl_round_trip(tmp_path):
    to_jsonl(filled(), tmp_path / "deep" / "m.jsonl")
    assert from_jsonl(tmp_path / "deep" / "m.jsonl") == filled()
    assert from_jsonl(tmp_path / "deep" / "m.jsonl", upto=2).rows == {1: ROWS[1], 2: ROWS[2]}


def test_jsonl_is_strict_json_whatever_the_numbers(tmp_path):
    odd = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1 + 0.2}
    fill(jsonl_writer(tmp_path / "m.jsonl"), {1: odd})
    line = (tmp_path / "m.jsonl").read_text()
    json.loads(line, parse_constant=lambda word: pytest.fail(f"not JSON: {word}"))
    back = from_jsonl(tmp_path / "m.jsonl").rows[1]
    assert math.isnan(back.pop("a"))
    assert back == {"b": math.inf, "c": -math.inf, "d": 0.1 + 0.2}


def test_jsonl_writer_has_each_line_on_disk_at_once(tmp_path):
    writer = jsonl_writer(tmp_path / "m.jsonl")
    writer.write(1, ROWS[1])
    assert from_jsonl(tmp_path / "m.jsonl").rows == {1: ROWS[1]}


@pytest.mark.parametrize("make", [jsonl_writer, csv_writer])
def test_resuming_drops_later_rounds_and_repeats_none(tmp_path, make):
    fill(make(tmp_path / "m"), ROWS)
    whole = (tmp_path / "m").read_text()
    resumed = make(tmp_path / "m", after=2)
    assert "0.75" not in (tmp_path / "m").read_text()
    fill(resumed, {3: ROWS[3], 4: ROWS[4]})
    assert (tmp_path / "m").read_text() == whole


@pytest.mark.parametrize("make", [jsonl_writer, csv_writer])
def test_a_new_run_starts_its_file_anew(tmp_path, make):
    fill(make(tmp_path / "m"), ROWS)
    fill(make(tmp_path / "m"), {1: {"loss": 7.0}})
    assert "1.25" not in (tmp_path / "m").read_text()


@pytest.mark.parametrize("make", [jsonl_writer, csv_writer])
def test_a_line_cut_off_by_a_crash_is_dropped_on_resume(tmp_path, make):
    fill(make(tmp_path / "m"), ROWS)
    whole = (tmp_path / "m").read_text()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "m").write_text("".join(lines[:-1]) + lines[-1][:4])
    fill(make(tmp_path / "m", after=9), {4: ROWS[4]})
    assert (tmp_path / "m").read_text() == whole


def test_a_spoilt_line_is_named(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"round": 1, "loss": 2}\n{"loss": 2}\n{"round": 3}\n')
    with pytest.raises(FedError, match=r"m.jsonl:2 is not the row of a round"):
        from_jsonl(tmp_path / "m.jsonl")
    with pytest.raises(FedError, match="no record of a run"):
        from_jsonl(tmp_path / "absent.jsonl")


def test_csv_widens_for_numbers_met_later(tmp_path):
    fill(csv_writer(tmp_path / "m.csv"))
    assert (tmp_path / "m.csv").read_text().splitlines() == [
        "round,loss,test/accuracy",
        "1,2.5,",
        "2,1.25,0.5",
        "3,0.1,",
        "4,1e-09,0.75",
    ]


def test_tensorboard_files_hold_the_rows(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    fill(tensorboard_writer(tmp_path, after=0))
    (file,) = tmp_path.glob("events*")
    found = [
        (event.step, value.tag, round(value.simple_value, 6))
        for event in events(file, Event)
        for value in event.summary.value
    ]
    assert (2, "test/accuracy", 0.5) in found
    assert (3, "loss", 0.1) in found
    assert len(found) == 6


def events(file, kind):
    """Records are: length (8 bytes), its crc (4), the event, its crc (4)."""
    content, at = file.read_bytes(), 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 8], "little")
        yield kind.FromString(content[at + 12 : at + 12 + size])
        at += size + 16


def test_tensorboard_without_the_extra_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(FedError, match=r"pip install 'fedjax-sim\[tensorboard\]'"):
        tensorboard_writer(tmp_path)
