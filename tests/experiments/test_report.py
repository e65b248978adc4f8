import math

import numpy as np
import pytest

from fedjax_sim.core.errors import FedError
from fedjax_sim.report import comparison, plot_runs
from fedjax_sim.report.tables import rounds_to
from fedjax_sim.simulation.history import history, record


def curve(top, rounds=20, worst=None):
    log = history()
    for r in range(1, rounds + 1):
        row = {"loss": 2.0 / r, "seconds": r / 4}
        if r % 5 == 0:
            row["test/accuracy"] = top * r / rounds
            row |= {} if worst is None else {"clients/accuracy_worst10": worst}
        record(log, r, row)
    return log


def cells(table):
    """Rows of the table as its columns hold them."""
    return list(zip(*[list(column.cells) for column in table.columns], strict=True))


def test_comparison_has_the_numbers():
    table = comparison({"fedavg": curve(0.8, worst=0.25), "scaffold": curve(0.9, rounds=40)})
    assert [column.header for column in table.columns][5] == "rounds to 80 %"
    assert cells(table) == [
        ("fedavg", "20", "80.0 %", "80.0 %", "25.0 %", "20", "5.0"),
        ("scaffold", "40", "90.0 %", "90.0 %", "-", "40", "10.0"),
    ]


def test_comparison_best_is_not_final_and_targets_may_be_missed():
    log = curve(0.8)
    record(log, 21, {"test/accuracy": 0.1})
    record(log, 22, {"test/accuracy": math.nan})
    (row,) = cells(comparison({"a": log}, target=0.95))
    assert row == ("a", "22", "nan %", "80.0 %", "-", "-", "5.0")


def test_comparison_of_runs_without_evaluation_has_dashes():
    log = history()
    record(log, 1, {"loss": 1.0})
    (row,) = cells(comparison({"a": log}))
    assert row == ("a", "1", "-", "-", "-", "-", "-")


def test_rounds_to_is_the_first_round_that_reached():
    assert rounds_to(curve(0.8), "test/accuracy", 0.4) == 10
    assert rounds_to(curve(0.8), "test/accuracy", 0.81) is None
    assert rounds_to(curve(0.8), "nobody", 0.1) is None


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_plot_is_written_where_asked(tmp_path, ending):
    path = plot_runs(
        {"fedavg": curve(0.8), "scaffold": curve(0.9)}, tmp_path / "deep" / f"plot.{ending}"
    )
    assert path == tmp_path / "deep" / f"plot.{ending}"
    assert path.stat().st_size > 5000


def test_plot_shows_labels_axes_and_curves(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    only_loss = history()
    record(only_loss, 1, {"loss": 1.0})
    plot_runs(
        {"fedavg": curve(0.8), "new": only_loss},
        tmp_path / "p.png",
        metrics=("test/accuracy", "nobody", "loss"),
    )
    left, right = drawn[0].axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("round", "test accuracy")
    assert right.get_ylabel() == "training loss"
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["fedavg"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["fedavg", "new"]
    assert np.array_equal(left.lines[0].get_xdata(), [5, 10, 15, 20])
    assert left.lines[0].get_color() == right.lines[0].get_color() != right.lines[1].get_color()


def test_plot_of_nothing_is_refused(tmp_path):
    with pytest.raises(FedError, match="nothing to plot"):
        plot_runs({}, tmp_path / "p.png")
    with pytest.raises(FedError, match="did you mean 'test/accuracy'"):
        plot_runs({"a": curve(0.5)}, tmp_path / "p.png", metrics=("test/acc",))
    with pytest.raises(FedError, match="nothing to compare"):
        comparison({})
