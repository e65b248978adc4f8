"""What ``python -m benchmarks.reliability`` attacks, with small numbers.

What other tests attack is left to them: disks (``experiments/test_history_full.py``, ``host/test_checkpoint.py``, ``data/test_prepared_damage.py``), signals
(``cli/test_cli_ends.py``, ``cli/test_cli_runs.py``), the same numbers (``engine/test_engine.py``).
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
from benchmarks.reliability.tally import Tally, together
from fedjax_sim.persistence.checkpoint import open_store

ROOT = Path(__file__).parents[2]
# Complaints of reads that outlive a failed load may come late on a busy machine.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_damage_to_any_file_of_a_checkpoint():
    found = damage.attack(flips=1, runs=False)
    assert found.attacks > 40
    assert not found.lost


def test_each_checkpoint_holds_its_own_round(monkeypatch):
    small = SimpleNamespace(**tiny.program()._asdict(), plan=SimpleNamespace(devices=[0]))
    monkeypatch.setattr(saving, "small", lambda: (small, tiny.variables()))
    found = saving.attacked(12)
    assert found["attacks"] == 12
    assert not found["lost"]


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
def test_killed_runs_whose_clients_memory_is_on_the_host():
    found = kills.attack(2, ("client memory on the host",), rounds=24)
    assert found.attacks
    assert not found.lost


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["kills", "damage", "disk", "signals", "numbers", "saving", "soak"]
)
def test_what_takes_a_while(name):
    found = ROWS[name].quick()
    assert found.attacks
    assert not found.lost


# --------------------------------------------------------------------------------------------- the attacks see what is wrong


def run(folder: Path, rows: str = "", table: str = "") -> Path:
    folder.mkdir()
    rows = (
        rows
        or '{"round": 1, "loss": 2.0, "seconds": 0.5}\n{"round": 2, "loss": 1.0, "seconds": 0.6}\n'
    )
    table = table or "round,loss,seconds\n1,2.0,0.5\n2,1.0,0.6\n"
    (folder / "summary.json").write_text(
        json.dumps({"state_hash": "x", "rounds": 2, "metrics": {}})
    )
    (folder / "metrics.jsonl").write_text(rows)
    (folder / "metrics.csv").write_text(table)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "said"),
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
def test_runs_that_differ_are_told_apart(tmp_path, name, text, said):
    one, other = (
        run(tmp_path / "one"),
        run(
            tmp_path / "other",
            rows='{"round": 1, "loss": 2.0, "seconds": 9}\n{"round": 2, "loss": 1.0}\n',
        ),
    )
    assert scenes.differences(one, other) == []
    (other / name).write_text(text)
    (found,) = scenes.differences(one, other)
    assert said in found


def test_files_of_a_run_that_is_not_over_may_end_in_a_torn_line_alone(tmp_path):
    folder = run(tmp_path / "run", rows='{"round": 1}\n{"round": 2}\n{"rou')
    assert scenes.meanwhile(folder) == []
    for rows, said in [
        ('{"round": 1}\n{"rou\n', "Unterminated"),
        ('{"round": 1}\n{"round": 3}\n', "other rounds than 1 to 2"),
    ]:
        (folder / "metrics.jsonl").write_text(rows)
        (found,) = scenes.meanwhile(folder)
        assert said in found


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
def test_growth_is_seen(late, lost):
    early = [soak.Sample(1000, 9, 5, float(number)) for number in range(90)]
    samples = [*early, *(late._replace(seconds=90 + number * late.seconds) for number in range(11))]
    found = soak.judged(samples, 10_000, "x")
    assert found["lost"] == [f"x: {text}" for text in lost]
    of_few = soak.judged(samples, 2000, "x")["lost"]
    assert of_few == [text for text in found["lost"] if "time" not in text]


def test_a_restored_checkpoint_is_judged(tmp_path, monkeypatch):
    store = damage.filled(tmp_path)
    assert damage.judged(store, "x") == ([], False)
    monkeypatch.setattr(damage, "state_hash", lambda state: object())
    assert damage.judged(store, "x")[0] == ["x: other values were restored"]


def test_tests_are_counted(tmp_path):
    cases = '<testcase name="a[odd-5]"/><testcase name="a[drawn-3-1]"/><testcase name="b"><failure/></testcase>'
    cases += '<testcase name="c[7-2]"><skipped/></testcase>'
    (tmp_path / "r.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert counted(tmp_path / "r.xml", "tests") == Tally(9, ("b",), "tests, 1 skipped")


def test_tests_that_are_not_there_are_a_loss():
    (said,) = suites.run(("host/test_files.py",), "whatever_was_renamed").lost
    assert "pytest ended with 5" in said


# ------------------------------------------------------------------------------------------------------------- the document


def results():
    return [
        Result(name, Tally(3, ("it | broke\nat once",) if name == "disk" else (), "as said"), 1.5)
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


def test_a_line_says_what_it_promises():
    one, other = map(page.line, results())
    assert {"row", "promise", "attacks", "lost", "note"} <= one.keys()
    assert (one["lost"], other["lost"]) == (0, 1)
    assert together(*(each.tally for each in results())) == Tally(
        6, ("it | broke\nat once",), "as said"
    )


def test_the_document_has_every_row_as_it_is():
    """Whatever the last full run found; a promise that was changed since is to be kept anew."""
    said = re.findall(
        r"^\| \*\*(\w+)\*\*: (.+?) \| (.+?) \|", page.DOCUMENT.read_text(), flags=re.MULTILINE
    )
    assert said == [(name, row.promise, row.how) for name, row in ROWS.items() if row.there()]


def test_rows_that_measure_time_have_the_machine_to_themselves(monkeypatch):
    under_way, seen = [], []

    def one(name):
        under_way.append(name)
        seen.append(tuple(under_way))
        under_way.remove(name)
        return Tally(1, ())

    rows = {
        name: Row("", "", partial(one, name), partial(one, name), alone=name == "alone")
        for name in ("alone", "one", "other")
    }
    monkeypatch.setattr(reliability, "ROWS", rows)
    assert {done.name for done in reliability.attacks(list(rows), quick=False)} == set(rows)
    assert seen[-1] == ("alone",)


def test_a_row_is_chosen_by_name():
    command = [sys.executable, "-m", "benchmarks.reliability", "--json", "--only"]
    done = subprocess.run(
        [*command, "oldest"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["row"] == "oldest"
    odd = subprocess.run(
        [*command, "everything"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert "--only: unknown everything; choose from kills," in odd.stderr
