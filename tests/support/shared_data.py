"""The folder of real data that some tests read; it is no part of the repository, and they skip
where it is absent.
"""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("FEDJAX_SIM_DATA") or Path(__file__).parents[3] / "shared" / "data")


def shared(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"no {name} in {FOLDER}; set FEDJAX_SIM_DATA to the folder of real data")
    return path
