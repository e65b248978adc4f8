"""What the tests of the command line share."""

import json
import os
import subprocess
import sys
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = """
rounds = 2
[task]
name = "digits"
clients = 12
model = "logistic"
[algorithm]
name = "scaffold"
[sampler]
kind = "uniform"
cohort = 4
[evaluation]
every = 2
"""


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def python(code: str, **env: str) -> str:
    """What a fresh interpreter prints."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
