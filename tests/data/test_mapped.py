"""Examples that lie in a file: found there, read there, and let go of."""

import mmap
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from fedjax_sim import samplers
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.types import Variables
from fedjax_sim.data import local_work, population
from fedjax_sim.data.prepared.mapped import SHORT, mapped, visiting
from fedjax_sim.engine import Engine
from fedjax_sim.engine.program import make_round
from fedjax_sim.models import logistic
from fedjax_sim.models.objectives import classification

ROWS = np.arange(300_000, dtype=np.float32).reshape(-1, 3)


@pytest.fixture
def rows(tmp_path: Path) -> np.ndarray:
    np.save(tmp_path / "rows.npy", ROWS)
    return np.asarray(np.load(tmp_path / "rows.npy", mmap_mode="r"))


def resident(name: str) -> int:
    """Bytes of a mapped file that count as this process's."""
    maps = Path("/proc/self/smaps").read_text()
    return 1024 * sum(
        int(kilobytes) for kilobytes in re.findall(rf"{name}\n(?:.*\n)*?Rss:\s+(\d+) kB", maps)
    )


def test_rows_are_where_they_are_said_to_be(rows):
    for part in (rows, rows[5:], rows[7:9]):
        where = mapped(part)
        held = where.memory[where.first : where.first + len(part) * where.row]
        np.testing.assert_array_equal(np.frombuffer(held, np.float32).reshape(-1, 3), part)


@pytest.mark.parametrize(
    "array",
    [ROWS, ROWS[::2], np.empty((0, 3)), np.arange(3)],
    ids=["memory", "every other", "none", "one axis"],
)
def test_an_array_in_memory_has_no_file(array):
    assert mapped(array) is None
    with visiting(array, [(0, 1)]):
        pass


def test_every_other_row_of_a_file_is_no_mapping(rows):
    assert mapped(rows[::2]) is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize(
    "runs",
    [[(0, 1), (70_000, 71_000), (3, 3), (99_999, 100_000)], [(0, len(ROWS))]],
    ids=["scattered", "long"],
)
def test_what_was_read_counts_until_it_is_let_go_of_and_is_there_again(rows, runs):
    assert max(stop - start for start, stop in runs) * 12 <= SHORT or len(runs) == 1
    with visiting(rows, runs):
        for start, stop in runs:
            np.testing.assert_array_equal(rows[start:stop], ROWS[start:stop])
        assert resident("rows.npy") >= 4 * sum(map(np.ptp, runs))
    assert resident("rows.npy") == 0
    np.testing.assert_array_equal(rows, ROWS)


def test_what_was_written_to_a_private_mapping_stays(tmp_path: Path):
    np.save(tmp_path / "rows.npy", ROWS)
    mine = np.asarray(np.load(tmp_path / "rows.npy", mmap_mode="c"))
    mine += 1
    assert mapped(mine) is None
    with visiting(mine, [(0, 5)]):
        pass
    np.testing.assert_array_equal(mine, ROWS + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_rounds_hold_nothing_of_the_files_they_were_packed_from(tmp_path: Path):
    np.save(tmp_path / "rows.npy", ROWS)
    data = population(
        np.load(tmp_path / "rows.npy", mmap_mode="r"),
        np.zeros(len(ROWS), np.int32),
        np.arange(0, len(ROWS) + 1, 100),
    )
    algorithm = next(iter(REGISTRY.values())).factory(classification(model := logistic(2)), lr=0.1)
    program = make_round(
        algorithm, samplers.uniform(20), data, local_work(50), Engine(devices=1, data="host")
    )
    state = program.init(Variables(*model.init(jax.random.key(0), ROWS[:1])))
    for _ in range(2):
        state, _ = program.run(state)
    jax.block_until_ready(state)
    last = program.run(state)  # has waited for the supply that the round before had ordered
    assert (
        resident("rows.npy") <= mmap.PAGESIZE * 20 * 3
    )  # at most what is being packed for the round after it
    jax.block_until_ready(last)
