import io
import math
import signal

import numpy as np
import pytest
import tiny
from rich.console import Console
from tiny_runs import FakeWriter, accuracy, go

from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Mean
from fedjax_sim.persistence.checkpoint import open_store, state_hash
from fedjax_sim.simulation.callbacks import Stop, callback, until_above, until_below
from fedjax_sim.simulation.loop import call_end, metric_rows

# -------------------------------------------------------------------------------------- rows, calls


def test_a_run_is_its_rounds_and_a_row_for_each():
    result = go(rounds=5)
    assert state_hash(tiny.program().logical(result.state)) == state_hash(tiny.after(5))
    assert result.stopped == "finished"
    assert result.history.get("loss")[1].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert result.history.get("loss")[0].tolist() == [1, 2, 3, 4, 5]
    assert result.history.get("cohort")[1].tolist() == [4.0] * 5


def test_rows_leave_out_what_was_not_weighed_and_what_is_no_number():
    history = go(rounds=4).history
    assert history.get("rare")[0].tolist() == [1, 3]
    assert "histogram" not in history.names()


def test_rows_keep_nan_and_divide_by_the_weight():
    rows = metric_rows(
        {"m": Mean(np.array([6.0, np.nan]), np.array([4.0, 1.0])), "s": np.array([2, 3])}, 2
    )
    assert rows[0] == {"m": 1.5, "s": 2.0}
    assert math.isnan(rows[1]["m"])


def test_seconds_ascend_and_go_on_after_a_resumption():
    first = go(rounds=4, rounds_per_call=2)
    second = go(rounds=6, resume=tiny.after(4), history=first.history)
    seconds = second.history.get("seconds")[1]
    assert len(seconds) == 6
    assert np.all(np.diff(seconds) >= 0)


@pytest.mark.parametrize("per_call", [1, 2, 4, 100])
def test_grouping_rounds_changes_nothing(per_call):
    program = tiny.program()
    result = go(program, rounds=9, rounds_per_call=per_call, evaluate=accuracy, evaluate_every=3)
    assert state_hash(program.logical(result.state)) == state_hash(tiny.after(9))
    assert result.history.get("test/accuracy")[0].tolist() == [3, 6, 9]
    assert result.history.get("test/accuracy")[1].tolist() == pytest.approx([0.3, 0.6, 0.9])
    assert result.history.get("loss")[1].tolist() == pytest.approx([1 / r for r in range(1, 10)])
    assert max(program.calls) <= min(per_call, 3)
    assert sum(program.calls) == 9


def test_calls_end_where_something_is_due():
    assert call_end(0, 100, 10, None, None) == 10
    assert call_end(0, 100, 10, 4, None) == 4
    assert call_end(4, 100, 10, 4, 6) == 6
    assert call_end(8, 100, 3, 50) == 11
    assert call_end(95, 100, 10, 60) == 100


def test_the_last_round_is_always_evaluated():
    assert go(rounds=7, evaluate=accuracy, evaluate_every=5).history.get("test/accuracy")[
        0
    ].tolist() == [5, 7]


@pytest.mark.parametrize(
    "wrong",
    [{"rounds": 0}, {"evaluate_every": 0}, {"rounds_per_call": -1}, {"checkpoint_every": 0}],
)
def test_numbers_are_checked_before_anything_runs(wrong):
    program = tiny.program()
    with pytest.raises(FedError, match=f"{next(iter(wrong))} must be positive"):
        go(program, **wrong)
    assert program.calls == []


# ------------------------------------------------------------------------------ callbacks, stopping


def test_callbacks_are_told_in_order(tmp_path):
    told = []
    slots = ("on_run_start", "on_round_end", "on_evaluate", "on_checkpoint", "on_run_end")
    spy = callback(
        **{
            slot: lambda event, slot=slot: told.append((slot, event.round, int(event.state.round)))
            for slot in slots
        }
    )
    go(
        rounds=3,
        rounds_per_call=2,
        evaluate=accuracy,
        evaluate_every=2,
        store=open_store(tmp_path),
        checkpoint_every=2,
        callbacks=[spy],
    )
    assert told == [
        ("on_run_start", 0, 0),
        ("on_round_end", 1, 2),
        ("on_round_end", 2, 2),
        ("on_evaluate", 2, 2),
        ("on_checkpoint", 2, 2),
        ("on_round_end", 3, 3),
        ("on_evaluate", 3, 3),
        ("on_checkpoint", 3, 3),
        ("on_run_end", 3, 3),
    ]


def test_events_carry_row_history_outcome_and_program():
    program, seen = tiny.program(), []
    go(
        program,
        rounds=2,
        evaluate=accuracy,
        evaluate_every=2,
        callbacks=[callback(on_round_end=seen.append)],
    )
    assert seen[1].row["test/accuracy"] == pytest.approx(0.2)
    assert seen[1].row == seen[1].history.rows[2]
    assert seen[0].outcome.clients["loss"].total.shape == (1, 2)
    assert seen[0].program is program
    assert seen[0].rounds == 2


@pytest.mark.parametrize(
    ("slot", "stops_at"),
    [
        ("on_run_start", 0),
        ("on_round_end", 1),
        ("on_evaluate", 2),
        ("on_checkpoint", 3),
        ("on_run_end", 6),
    ],
)
def test_any_slot_can_stop_the_run(tmp_path, slot, stops_at):
    store = open_store(tmp_path)
    hook = callback(**{slot: lambda event: Stop(f"enough of {slot}")})
    result = go(
        rounds=6,
        evaluate=accuracy,
        evaluate_every=2,
        store=store,
        checkpoint_every=3,
        callbacks=[hook],
    )
    assert int(result.state.round) == stops_at
    assert result.stopped == ("finished" if slot == "on_run_end" else f"enough of {slot}")
    assert store.steps()[-1] == stops_at


def test_the_first_reason_counts_and_all_callbacks_are_told():
    told = []
    hooks = [
        callback(on_round_end=lambda _: Stop("one")),
        callback(on_round_end=lambda e: told.append(e.round) or Stop("two")),
    ]
    assert go(callbacks=hooks).stopped == "one"
    assert told == [1]


def test_a_slot_returns_nothing_or_stop():
    with pytest.raises(FedError, match=r"on_round_end returns None or Stop: got \[True\]"):
        go(callbacks=[callback(on_round_end=lambda _: True)])


def test_target_stops_at_the_evaluation_that_reached_it():
    result = go(rounds=50, evaluate=accuracy, evaluate_every=2, target=("test/accuracy", 0.35))
    assert int(result.state.round) == 4
    assert result.stopped == "test/accuracy reached 0.35"


def test_until_below_stops_on_the_way_down():
    assert go(rounds=50, callbacks=[until_below("loss", 0.25)]).history.get("loss")[0].tolist() == [
        1,
        2,
        3,
        4,
    ]
    assert int(go(rounds=5, callbacks=[until_above("loss", 2.0)]).state.round) == 5


def test_a_target_that_nobody_reports_is_an_error():
    with pytest.raises(FedError, match="did you mean 'test/accuracy'"):
        go(evaluate=accuracy, evaluate_every=1, target=("test/acc", 0.5))
    with pytest.raises(FedError, match="a target needs an evaluation"):
        go(target=("test/accuracy", 0.5))


def test_an_error_in_a_callback_passes_and_writers_are_closed():
    writer = FakeWriter()

    def fail(event):
        raise ZeroDivisionError("the caller's")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        go(callbacks=[callback(on_round_end=fail)], writers=[writer])
    assert writer.closed
    assert signal.getsignal(signal.SIGINT) is before


# ----------------------------------------------------------------------------------------- progress


def shown(terminal, rounds=6, **settings):
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, width=110, _environ={"TERM": "xterm"}, no_color=True
    )
    go(
        rounds=rounds,
        progress=True,
        console=console,
        evaluate=accuracy,
        evaluate_every=3,
        **settings,
    )
    return out.getvalue()


def test_without_a_terminal_lines_show_the_first_call_and_the_end():
    lines = shown(False).splitlines()
    assert lines[0].startswith("round 1/6  loss 1.0000")
    assert lines[-1].startswith("round 6/6  loss 0.1667  test/accuracy 60.0 %")
    assert "rounds/s" in lines[-1]
    assert len(lines) <= 4
    assert "\x1b" not in "".join(lines)


def test_on_a_terminal_a_bar_shows_rounds_rate_loss_and_accuracy():
    final = shown(True).rsplit("\r", 1)[-1] if "\r" in shown(True) else shown(True)
    for words in ("6/6", "loss 0.1667", "test/accuracy 60.0 %", "rounds/s"):
        assert words in final


def test_eta_is_rounds_left_over_the_rate(monkeypatch):
    from fedjax_sim.simulation import progress

    clock = iter([100.0, 102.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    status = progress.Status(21)
    assert "ETA" not in status.update(1, {"loss": 1.0})
    assert status.update(5, {}) == "loss 1.0000  2.0 rounds/s  ETA 0:00:08"


def test_no_progress_shows_nothing(capsys):
    out = io.StringIO()
    go(rounds=3, console=Console(file=out))
    assert out.getvalue() == ""
    assert capsys.readouterr() == ("", "")
