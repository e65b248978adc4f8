import io
import os
import signal
import threading

import pytest
import tiny
from rich.console import Console
from tiny_runs import FakeWriter, accuracy, blank, go

from fedjax_sim.core.errors import FedError
from fedjax_sim.persistence.checkpoint import SaveError, open_store, state_hash
from fedjax_sim.runtime.signals import graceful_stop
from fedjax_sim.simulation.callbacks import callback
from fedjax_sim.simulation.history import from_jsonl
from fedjax_sim.simulation.writers import jsonl_writer

# -------------------------------------------------------------------------------- writers, resuming


def without_seconds(history):
    return {
        r: {name: value for name, value in row.items() if name != "seconds"}
        for r, row in history.rows.items()
    }


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    evaluated = {"evaluate": accuracy, "evaluate_every": 3}
    whole = go(rounds=10, writers=[jsonl_writer(tmp_path / "whole.jsonl")], **evaluated)
    path = tmp_path / "m.jsonl"
    go(
        rounds=7,
        store=open_store(tmp_path / "ck"),
        checkpoint_every=5,
        writers=[jsonl_writer(path)],
        **evaluated,
    )
    store = open_store(tmp_path / "ck")
    back = store.restore(blank(), 5)
    resumed = go(
        rounds=10,
        resume=back.state,
        history=from_jsonl(path),
        writers=[jsonl_writer(path, after=back.step)],
        store=store,
        checkpoint_every=5,
        **evaluated,
    )
    assert state_hash(tiny.program().logical(resumed.state)) == state_hash(
        tiny.program().logical(whole.state)
    )
    assert list(from_jsonl(path).rows) == list(range(1, 11))
    ours, theirs = (
        without_seconds(resumed.history),
        without_seconds(from_jsonl(tmp_path / "whole.jsonl")),
    )
    assert ours.pop(7)["loss"] == theirs.pop(7)["loss"]
    assert ours == theirs
    assert store.steps() == (5, 10)


def test_resuming_does_not_touch_the_callers_state_and_history():
    state, history = tiny.after(3), go(rounds=5).history
    go(rounds=6, resume=state, history=history)
    assert state_hash(state) == state_hash(tiny.after(3))
    assert list(history.rows) == [1, 2, 3, 4, 5]


def test_resuming_a_finished_run_runs_nothing():
    program = tiny.program()
    result = go(program, rounds=4, resume=tiny.after(4))
    assert program.calls == []
    assert result.stopped == "finished"


# -------------------------------------------------------------------------------------- checkpoints


def test_checkpoints_at_their_rounds_and_at_the_end(tmp_path):
    store = open_store(tmp_path, keep=None)
    go(rounds=7, store=store, checkpoint_every=3, rounds_per_call=5, metadata={"config": {"x": 1}})
    assert store.steps() == (3, 6, 7)
    for step in store.steps():
        assert state_hash(store.restore(blank(), step).state) == state_hash(tiny.after(step))
    assert store.restore(blank()).metadata["config"] == {"x": 1}


def test_only_the_last_state_where_no_interval_is_given(tmp_path):
    store = open_store(tmp_path)
    go(rounds=4, store=store, checkpoint_every=None)
    assert store.steps() == (4,)


def test_a_store_with_another_run_is_refused_before_anything_runs(tmp_path):
    go(rounds=2, store=open_store(tmp_path))
    program = tiny.program()
    with pytest.raises(FedError, match=r"already has checkpoints: got rounds \(2,\)"):
        go(program, store=open_store(tmp_path))
    assert program.calls == []


class FailingStore:
    """A store whose first save fails."""

    def __init__(self, store):
        self.store = store
        self.failed = False

    def __getattr__(self, name):
        return getattr(self.store, name)

    def save(self, state, metadata):
        if not self.failed:
            self.failed = True
            raise SaveError("no room")
        self.store.save(state, metadata)


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(tmp_path):
    store, shown = open_store(tmp_path), io.StringIO()
    failing = FailingStore(store)
    result = go(rounds=4, store=failing, checkpoint_every=2, console=Console(file=shown))
    assert result.stopped == "finished"
    assert result.notes == ("no room",)
    assert "no room" in shown.getvalue()
    assert store.steps() == (2, 4)


# ------------------------------------------------------------------------------------------ signals


def send(number, at):
    return callback(
        on_round_end=lambda event: os.kill(os.getpid(), number) if event.round in at else None
    )


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_the_first_signal_finishes_the_round_and_saves(tmp_path, number, word):
    store, shown, before = open_store(tmp_path), io.StringIO(), signal.getsignal(number)
    result = go(rounds=50, store=store, callbacks=[send(number, [3])], console=Console(file=shown))
    assert result.stopped == word
    assert store.steps() == (3,)
    assert state_hash(store.restore(blank()).state) == state_hash(tiny.after(3))
    assert "finishing this round" in shown.getvalue()
    assert signal.getsignal(number) is before


def test_the_second_ctrl_c_stops_at_once():
    def twice(event):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    writer = FakeWriter()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        go(
            callbacks=[callback(on_round_end=twice)],
            writers=[writer],
        )
    assert writer.closed
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_no_handler_is_installed():
    before, found = signal.getsignal(signal.SIGINT), []
    spy = callback(on_round_end=lambda _: found.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=lambda: go(rounds=2, callbacks=[spy]))
    thread.start()
    thread.join()
    assert found == [before, before]


def test_a_signal_in_the_middle_of_a_print_is_heard():
    printing, said = threading.Lock(), []

    def say(text):
        with printing:
            said.append(text)

    with graceful_stop(say) as asked:
        with printing:
            signal.raise_signal(signal.SIGINT)
        assert asked() == "interrupted"
    assert said == ["finishing this round; once more to stop at once"]


def test_handlers_are_put_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)

    def body():
        with graceful_stop(print) as asked:
            assert signal.getsignal(signal.SIGTERM) is not before
            assert asked() is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert signal.getsignal(signal.SIGTERM) is before
