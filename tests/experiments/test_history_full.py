"""Rows on a disk that is full for a while: none is lost, torn or doubled, and one line is said."""

import contextlib
import io
import signal

import pytest
import tiny
from disks import file_limit
from rich.console import Console
from test_history import ROWS, events, fill
from tiny_runs import FakeWriter, accuracy, go

from fedjax_sim.persistence.checkpoint import open_store, state_hash
from fedjax_sim.simulation.callbacks import callback
from fedjax_sim.simulation.history import from_jsonl
from fedjax_sim.simulation.progress import open_progress
from fedjax_sim.simulation.writers import (
    WriteError,
    csv_writer,
    jsonl_writer,
    tensorboard_writer,
)

MAKERS = {"m.jsonl": jsonl_writer, "m.csv": csv_writer}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("room", [0, 3, 20, 30])
def test_rows_wait_for_room(tmp_path, name, room):
    fill(MAKERS[name](tmp_path / "whole"))
    path = tmp_path / name
    writer = MAKERS[name](path)
    writer.write(1, ROWS[1])
    before = path.read_bytes()
    with file_limit(room):
        for round_ in (2, 3):
            with pytest.raises(
                WriteError,
                match=rf"{name} could not be written from round 2 on; .*: got File too large; free",
            ):
                writer.write(round_, ROWS[round_])
        assert path.read_bytes() == before
    writer.write(4, ROWS[4])
    writer.close()
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("name", MAKERS)
def test_rows_are_written_at_the_end_if_not_before(tmp_path, name):
    fill(MAKERS[name](tmp_path / "whole"))
    writer = MAKERS[name](tmp_path / name)
    with file_limit(0):
        for round_, row in ROWS.items():
            with pytest.raises(WriteError):
                writer.write(round_, row)
        with pytest.raises(
            WriteError, match=r"lacks rounds 1 to 4, which could not be written: got File too large"
        ):
            writer.close()
    writer.close()
    assert (tmp_path / name).read_bytes() == (tmp_path / "whole").read_bytes()


def test_tensorboard_files_wait_too_and_nobody_waits_for_them(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    writer = tensorboard_writer(tmp_path, after=0)
    with file_limit(0):
        for round_ in range(1, 31):
            with pytest.raises(WriteError, match="from round 1 on"):
                writer.write(round_, {"loss": float(round_)})
    writer.close()
    (file,) = tmp_path.glob("events*")
    found = list(events(file, Event))
    assert found[0].file_version == "brain.Event:2"
    assert found[1].session_log.status == 1
    assert [event.step for event in found[1:]] == [1, *range(1, 31)]


def test_a_run_goes_on_says_it_once_and_has_all_rows(tmp_path):
    full, shown = contextlib.ExitStack(), io.StringIO()

    def limit(event):
        if event.round == 3:
            full.enter_context(file_limit(30))
        if event.round == 6:
            full.close()

    paths = [tmp_path / "m.jsonl", tmp_path / "m.csv"]
    writers = [jsonl_writer(paths[0]), csv_writer(paths[1])]
    result = go(
        rounds=9,
        writers=writers,
        callbacks=[callback(on_round_end=limit)],
        console=Console(file=shown, width=1000),
    )
    assert result.stopped == "finished"
    (note,) = result.notes
    assert "m.jsonl could not be written from round 4 on" in note
    assert shown.getvalue().count("could not be written") == 1
    assert from_jsonl(paths[0]) == result.history
    assert [line.split(",")[0] for line in paths[1].read_text().splitlines()] == [
        "round",
        *map(str, range(1, 10)),
    ]
    assert state_hash(tiny.program().logical(result.state)) == state_hash(tiny.after(9))


def test_rows_that_never_found_room_are_told_of_and_no_error(tmp_path):
    writer = FakeWriter(WriteError("lacks rounds 1 to 2"))
    result = go(rounds=2, writers=[writer], evaluate=accuracy)
    assert result.notes == ("lacks rounds 1 to 2",)


def test_a_checkpoint_that_fails_again_and_again_is_told_of_once(tmp_path):
    store, before = open_store(tmp_path / "ck"), signal.getsignal(signal.SIGXFSZ)
    go(rounds=2)  # compiled, and kept among JAX's programs, while files may grow
    with file_limit(0):
        result = go(rounds=2, store=store, checkpoint_every=None)
    assert len(result.notes) == 1
    assert "round 2 could not be written" in result.notes[0]
    assert not list((tmp_path / "ck").glob("*"))  # what was left of it would take room
    assert signal.getsignal(signal.SIGXFSZ) is before


def test_a_log_that_cannot_be_written_does_not_end_a_run():
    class Full(io.StringIO):
        def write(self, _):
            raise OSError(28, "No space left on device")

    for show in (False, True):
        progress = open_progress(3, console=Console(file=Full()), show=show)
        progress.say("hello")
        progress.advance(1, {"loss": 1.0})
        progress.close()
