"""Promises that tests attack already: the tests are run, and counted."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.fresh import ROOT
from benchmarks.reliability.tally import Tally

LIMIT = 900
FAILED = 1
"""What pytest ends with where tests failed."""
GENERATED = re.compile(r"\[(?:drawn|odd|mutated)-(\d+)(?:-\d+)?\]$")
"""Names of tests that are of so many generated examples, and where drawing begins."""


def there(files: tuple[str, ...]) -> bool:
    """Whether all of these tests exist."""
    return all((ROOT / "tests" / name).is_file() for name in files)


def run(files: tuple[str, ...], which: str = "") -> Tally:
    """The tests of some files but for those marked slow; ``which`` are words of pytest's ``-k``."""
    with tempfile.TemporaryDirectory() as top:
        report = Path(top) / "report.xml"
        words = [
            "-q",
            "-p",
            "no:cacheprovider",
            "--no-header",
            f"--junitxml={report}",
            "-m",
            "not slow",
            "-k",
            which,
        ]
        paths = [f"tests/{name}" for name in files]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *words, *paths],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            return Tally(0, (f"{', '.join(paths)} took more than {LIMIT} s",))
        if done.returncode not in (
            0,
            FAILED,
        ):  # nothing was selected, or not even that was found out
            return Tally(
                0, (f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-300:]}",)
            )
        some = "some tests" if which else "tests"
        return counted(report, f"{some} of {', '.join(f'`{path}`' for path in paths)}")


def counted(report: Path, note: str) -> Tally:
    """What a report of pytest's says. Tests that were skipped attacked nothing; the examples of a generated one count each."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = [case for case in cases if case.find("skipped") is not None]
    failed = [
        case.get("name", "")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    generated = [
        int(found[1]) - 1 for case in cases if (found := GENERATED.search(case.get("name", "")))
    ]
    count = len(cases) - len(skipped) + sum(generated)
    return Tally(count, tuple(failed), note + (f", {len(skipped)} skipped" if skipped else ""))
