"""Promises that the test suite attacks: its tests are run and counted."""

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
"""Exit status of pytest if tests failed."""
GENERATED = re.compile(r"\[(?:drawn|odd|mutated)-(\d+)(?:-\d+)?\]$")
"""Names of tests of generated examples: their number, and the first seed."""


def exist(files: tuple[str, ...]) -> bool:
    """Whether all of these files of tests exist."""
    return all((ROOT / "tests" / name).is_file() for name in files)


def run(files: tuple[str, ...], which: str = "") -> Tally:
    """Runs the tests of some files, except for those marked slow.

    Args:
      files: below ``tests/``.
      which: selects tests, as pytest's ``-k``; all by default.
    """
    paths = [f"tests/{name}" for name in files]
    with tempfile.TemporaryDirectory() as top:
        report = Path(top) / "report.xml"
        options = ["-q", "-p", "no:cacheprovider", "--no-header", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, "-m", "not slow", "-k", which, *paths]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return Tally(0, (f"{', '.join(paths)} took more than {LIMIT} s",))
        if done.returncode not in (0, FAILED):  # no test was selected, or collecting failed
            output = (done.stdout + done.stderr)[-300:]
            return Tally(0, (f"pytest ended with {done.returncode}: {output}",))
        some = "some tests" if which else "tests"
        return counted(report, f"{some} of {', '.join(f'`{path}`' for path in paths)}")


def counted(report: Path, note: str) -> Tally:
    """Counts the tests of a JUnit report.

    Skipped tests do not count; a test of generated examples counts each example.

    Args:
      report: an XML file.
      note: of the tally.
    """
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = [case for case in cases if case.find("skipped") is not None]
    failed = [
        case.get("name", "")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    matches = [GENERATED.search(case.get("name", "")) for case in cases]
    further_examples = sum(int(match[1]) - 1 for match in matches if match)
    count = len(cases) - len(skipped) + further_examples
    return Tally(count, tuple(failed), note + (f", {len(skipped)} skipped" if skipped else ""))
