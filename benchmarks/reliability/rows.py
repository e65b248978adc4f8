"""The promises, how each is attacked, and with what strength."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks.reliability import damage, disk, kills, numbers, saving, signals, soak, suites
from benchmarks.reliability.tally import Tally

Attack = Callable[[], Tally]


class Row(NamedTuple):
    """One promise."""

    promise: str
    how: str
    """How it is attacked, in words."""
    full: Attack
    quick: Attack
    """A smaller attack."""
    exists: Callable[[], bool] = lambda: True
    """Whether what is promised exists in this version."""
    alone: bool = False
    """Whether it measures time on all cores."""


def _tests(promise: str, how: str, *files: str, quick: str = "") -> Row:
    """A promise that the test suite attacks.

    Args:
      promise: in words.
      how: in words.
      files: of tests, below ``tests/``; the quick attack runs the first of them.
      quick: selects the tests of the quick attack, as pytest's ``-k``.
    """
    return Row(
        promise,
        how,
        partial(suites.run, files),
        partial(suites.run, files[:1], quick),
        partial(suites.exist, files),
    )


ROWS: dict[str, Row] = {
    "kills": Row(
        "A run that is killed at any moment and resumed equals a run that is not killed: same"
        " state, same metrics, no line missing, repeated or torn.",
        "`kill -9` between rounds, while checkpoints are written, in the first seconds, after the"
        " last round; resumed each time",
        kills.attack,
        lambda: kills.attack(2, ("all on the devices",), 24),
    ),
    "damage": Row(
        "A damaged checkpoint is detected: the newest intact one is used, and one line names the"
        " damaged one and the damage; a checkpoint of another configuration is an error that names"
        " the leaf.",
        "every file of a checkpoint is emptied, truncated, removed, or has a bit flipped, in turn",
        damage.attack,
        lambda: damage.attack(2, runs=False),
    ),
    "disk": Row(
        "A full disk is reported once, and nothing that was saved is lost; checkpoints are tried"
        " again when the next one is due, rows with the next row, and both are complete when there"
        " is space again.",
        "the disk fills up during a run, at its start, until its end, while data are prepared",
        disk.attack,
        lambda: disk.attack((0,), ("for a while", "while data are prepared")),
    ),
    "signals": Row(
        "SIGINT and SIGTERM let the round end, save, and exit with 130 and 143; a second signal"
        " ends the run at once and damages nothing.",
        "signals at random moments, also during calls that take minutes; resumed each time",
        signals.attack,
        lambda: signals.attack(1, ("two SIGINT",)),
    ),
    "numbers": Row(
        "With `engine.shards` fixed a run has the same bits on any backend, any number of devices"
        " and several processes, every time.",
        "hash of the whole state",
        numbers.attack,
        lambda: numbers.attack(counts=(2,), processes=False, repeats=0),
        alone=True,
    ),
    "memory": _tests(
        "A round that does not fit into device memory is compiled again with half the lanes: no"
        " round is lost, and one line reports it.",
        "device memory that is too small by the compiler's estimate, and device memory that runs"
        " out during a round",
        "engine/test_memory_limit.py",
        quick="lanes",
    ),
    "nonfinite": _tests(
        "A client whose result is NaN or infinite is dropped as if it were absent, or its round is"
        " rejected, reported and replayed.",
        "such clients in every algorithm and on every engine",
        "engine/test_replay.py",
        "engine/test_nonfinite.py",
        quick="first_batch",
    ),
    "input": _tests(
        "Any content of a file, word or folder is accepted, or rejected with an error of one"
        " sentence: no traceback, and nothing is written elsewhere.",
        "generated and mutated configurations, random bytes in place of every file of a run,"
        " well-formed files with correct checksums and other content (thousands more of both:"
        " `make test-slow`)",
        "fuzz/test_config_fuzz.py",
        "experiments/test_config_damage.py",
        "fuzz/test_wrong_things.py",
        "fuzz/test_wrong_runs.py",
        "fuzz/test_wrong_words.py",
        quick="whatever",
    ),
    "saving": Row(
        "A checkpoint that is written while the next round runs holds the state of its own round.",
        "a checkpoint of every round, compared with the same rounds without checkpoints",
        saving.attack,
        lambda: saving.attack(20),
    ),
    "soak": Row(
        "Long runs do not grow: memory within 2 %, threads, open files and the time of a round are"
        " constant.",
        "10,000 rounds with checkpoints, evaluations and callbacks",
        soak.attack,
        lambda: soak.attack(1000, ("examples on the devices",)),
    ),
    "export": _tests(
        "An exported model is the model of the run.",
        "written, read again, and compared in every format",
        "host/test_export.py",
        "cli/test_cli_export.py",
        quick="weights",
    ),
    "oldest": Row(
        "All of this holds on the oldest supported versions, too.",
        "the suite on Python 3.13 with JAX 0.7.2: `make test-oldest`",
        lambda: Tally(0, (), "a command of its own, not run here"),
        lambda: Tally(0, (), "a command of its own, not run here"),
    ),
}
