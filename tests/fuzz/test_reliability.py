"""The attacks of ``python -m benchmarks.reliability``, with small numbers.

Other tests cover the rest: disks (``experiments/test_history_full.py``,
``host/test_checkpoint.py``, ``data/test_prepared_damage.py``), signals (``cli/test_cli_ends.py``,
``cli/test_cli_runs.py``), the same numbers (``engine/test_engine.py``).
"""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from tiny_runs import go

from benchmarks.reliability import __main__ as reliability
from benchmarks.reliability import damage, kills, page, saving, scenes, soak, suites
from benchmarks.reliability.page import Result
from benchmarks.reliability.rows import ROWS, Row
from benchmarks.reliability.suites import counted
from benchmarks.reliability.tally import Tally, combined
from fedjax_sim.persistence.checkpoint import open_store

ROOT = Path(__file__).parents[2]
# Errors of reads that continue after a failed load may come late on a busy machine.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_damage_to_any_file_of_a_checkpoint():
    tally = damage.attack(flips=1, runs=False)
    assert tally.attacks > 40
    assert not tally.lost


def test_each_checkpoint_holds_its_own_round(monkeypatch):
    small = SimpleNamespace(**tiny.program()._asdict(), plan=SimpleNamespace(devices=[0]))
    monkeypatch.setattr(saving, "small", lambda: (small, tiny.variables()))
    tally = saving.attacked(12)
    assert tally["attacks"] == 12
    assert not tally["lost"]


def test_what_is_opened_for_a_checkpoint_is_closed(tmp_path):
    samples = []
    for name, rounds in (("first", 4), ("many", 44)):
        go(rounds=rounds, store=open_store(tmp_path / name), checkpoint_every=1)
        gc.collect()
        samples.append(soak.sample())
    first, many = samples
    assert many.handles < first.handles + 10
    assert many.threads < first.threads + 10


@pytest.mark.slow
def test_killed_runs_with_client_memory_on_the_host():
    tally = kills.attack(2, ("client memory on the host",), rounds=24)
    assert tally.attacks
    assert not tally.lost


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["kills", "damage", "disk", "signals", "numbers", "saving", "soak"]
)
def test_quick_attacks(name):
    tally = ROWS[name].quick()
    assert tally.attacks
    assert not tally.lost


# ------------------------------------------------------------- the attacks detect what is wrong


def run(folder: Path, rows: str = "", table: str = "") -> Path:
    folder.mkdir()
    lines = '{"round": 1, "loss": 2.0, "seconds": 0.5}\n{"round": 2, "loss": 1.0, "seconds": 0.6}\n'
    rows = rows or lines
    table = table or "round,loss,seconds\n1,2.0,0.5\n2,1.0,0.6\n"
    (folder / "summary.json").write_text(
        json.dumps({"state_hash": "x", "rounds": 2, "metrics": {}})
    )
    (folder / "metrics.jsonl").write_text(rows)
    (folder / "metrics.csv").write_text(table)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "metrics.jsonl",
            '{"round": 1, "loss": 2.0}\n',
            "1 lines instead of 2, other from line 2 on",
        ),
        ("metrics.jsonl", '{"round": 1, "loss": 2.0}\n{"round": 2, "lo', "the last line is torn"),
        (
            "metrics.jsonl",
            '{"round": 1, "loss": 2.0}\n{"round": 1, "loss": 2.0}\n{"round": 2, "loss": 1.0}\n',
            "other from line 2 on",
        ),
        ("metrics.csv", "round,loss,seconds\n1,2.0,0.5\n2,1.0\n", "too many or too few cells"),
        ("metrics.csv", "round,loss,seconds\n1,2.0,0.5\n2,1.5,0.6\n", "other from line 2 on"),
        (
            "summary.json",
            '{"state_hash": "y", "rounds": 2, "metrics": {}}',
            "state_hash 'y' is not 'x'",
        ),
    ],
)
def test_differences_between_runs_are_found(tmp_path, name, text, expected):
    whole = run(tmp_path / "whole")
    hurt = run(
        tmp_path / "hurt",
        rows='{"round": 1, "loss": 2.0, "seconds": 9}\n{"round": 2, "loss": 1.0}\n',
    )
    assert scenes.differences(whole, hurt) == []
    (hurt / name).write_text(text)
    (difference,) = scenes.differences(whole, hurt)
    assert expected in difference


def test_only_the_last_line_of_a_running_run_may_be_torn(tmp_path):
    folder = run(tmp_path / "run", rows='{"round": 1}\n{"round": 2}\n{"rou')
    assert scenes.meanwhile(folder) == []
    for rows, expected in [
        ('{"round": 1}\n{"rou\n', "Unterminated"),
        ('{"round": 1}\n{"round": 3}\n', "other rounds than 1 to 2"),
    ]:
        (folder / "metrics.jsonl").write_text(rows)
        (text,) = scenes.meanwhile(folder)
        assert expected in text


@pytest.mark.parametrize(
    ("late", "lost"),
    [
        (soak.Sample(1000, 9, 5, 1.0), []),
        (soak.Sample(1030, 9, 5, 1.0), ["memory grew by 3.0 %"]),
        (soak.Sample(1000, 13, 5, 1.0), ["4 more threads"]),
        (soak.Sample(1000, 9, 6, 1.0), ["1 more open files"]),
        (soak.Sample(1000, 9, 5, 1.5), ["a round takes 1.50 times the processor time"]),
    ],
)
def test_growth_is_detected(late, lost):
    early = [soak.Sample(1000, 9, 5, float(number)) for number in range(90)]
    samples = [*early, *(late._replace(seconds=90 + number * late.seconds) for number in range(11))]
    tally = soak.judged(samples, 10_000, "x")
    assert tally["lost"] == [f"x: {text}" for text in lost]
    few_rounds = soak.judged(samples, 2000, "x")["lost"]
    assert few_rounds == [text for text in tally["lost"] if "time" not in text]


def test_a_restored_checkpoint_is_judged(tmp_path, monkeypatch):
    store = damage.filled(tmp_path)
    assert damage.judged(store, "x") == ([], False)
    monkeypatch.setattr(damage, "state_hash", lambda state: object())
    assert damage.judged(store, "x")[0] == ["x: other values were restored"]


def test_tests_are_counted(tmp_path):
    cases = '<testcase name="a[odd-5]"/><testcase name="a[drawn-3-1]"/>'
    cases += '<testcase name="b"><failure/></testcase>'
    cases += '<testcase name="c[7-2]"><skipped/></testcase>'
    (tmp_path / "r.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert counted(tmp_path / "r.xml", "tests") == Tally(9, ("b",), "tests, 1 skipped")


def test_missing_tests_are_a_loss():
    (text,) = suites.run(("host/test_files.py",), "no_test_has_this_name").lost
    assert "pytest ended with 5" in text


# ------------------------------------------------------------------------------------- the document


def results():
    return [
        Result(name, Tally(3, ("it | broke\nat once",) if name == "disk" else (), "note"), 1.5)
        for name in ("kills", "disk")
    ]


def test_the_table_goes_between_the_markers(tmp_path):
    path = tmp_path / "reliability.md"
    path.write_text(f"before\n{page.START}\nold\n{page.END}\nafter\n")
    for _ in range(2):
        page.update(results(), 90.0, path)
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count(f"| **kills**: {ROWS['kills'].promise} |") == 1
    assert "What was lost:" in text
    assert ", 2 minutes: " in text


def test_a_line_has_the_promise_and_the_losses():
    kept, broken = map(page.line, results())
    assert {"row", "promise", "attacks", "lost", "note"} <= kept.keys()
    assert (kept["lost"], broken["lost"]) == (0, 1)
    total = combined(*(result.tally for result in results()))
    assert total == Tally(6, ("it | broke\nat once",), "note")


def test_the_document_has_every_row_as_it_is():
    """The promises and attacks of the document are those of the code, whatever the results."""
    written = re.findall(
        r"^\| \*\*(\w+)\*\*: (.+?) \| (.+?) \|", page.DOCUMENT.read_text(), flags=re.MULTILINE
    )
    assert written == [(name, row.promise, row.how) for name, row in ROWS.items() if row.exists()]


def test_rows_that_measure_time_run_alone(monkeypatch):
    running = []
    history = []

    def attack(name):
        running.append(name)
        history.append(tuple(running))
        running.remove(name)
        return Tally(1, ())

    rows = {
        name: Row("", "", partial(attack, name), partial(attack, name), alone=name == "alone")
        for name in ("alone", "first", "second")
    }
    monkeypatch.setattr(reliability, "ROWS", rows)
    names = {result.name for result in reliability.attacks(list(rows), quick=False)}
    assert names == set(rows)
    assert history[-1] == ("alone",)


def test_a_row_is_chosen_by_name():
    command = [sys.executable, "-m", "benchmarks.reliability", "--json", "--only"]
    done = subprocess.run(
        [*command, "oldest"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["row"] == "oldest"
    unknown = subprocess.run(
        [*command, "everything"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert "--only: unknown everything; choose from kills," in unknown.stderr
