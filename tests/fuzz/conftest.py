"""What several files of fuzzing share."""

from pathlib import Path

import pytest
from things import make


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each thing that a command may be given. Tests copy it and leave it as it is."""
    return make(tmp_path_factory.mktemp("things"))
