"""Examples that lie in a file: found there, read there, and let go of."""

import mmap
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fedjax_sim.data.mapped import let_go, mapped, scattered, wanted

ROWS = np.arange(300_000, dtype=np.float32).reshape(-1, 3)


@pytest.fixture
def rows(tmp_path: Path) -> np.ndarray:
    np.save(tmp_path / "rows.npy", ROWS)
    return np.asarray(np.load(tmp_path / "rows.npy", mmap_mode="r"))


def resident(name: str) -> int:
    """Bytes of a mapped file that count as this process's."""
    maps = Path("/proc/self/smaps").read_text()
    return 1024 * sum(int(kilobytes) for kilobytes in re.findall(rf"{name}\n(?:.*\n)*?Rss:\s+(\d+) kB", maps))


def test_rows_are_where_they_are_said_to_be(rows):
    for part in (rows, rows[5:], rows[7:9]):
        where = mapped(part)
        held = where.memory[where.first : where.first + len(part) * where.row]
        np.testing.assert_array_equal(np.frombuffer(held, np.float32).reshape(-1, 3), part)


@pytest.mark.parametrize("array", [ROWS, ROWS[::2], np.empty((0, 3)), np.arange(3)], ids=["memory", "every other", "none", "one axis"])
def test_an_array_in_memory_has_no_file(array):
    assert mapped(array) is None
    scattered(mapped(array))
    wanted(mapped(array), 0, 1)
    let_go(mapped(array))


def test_every_other_row_of_a_file_is_no_mapping(rows):
    assert mapped(rows[::2]) is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_what_was_read_counts_until_it_is_let_go_of_and_is_there_again(rows):
    where = mapped(rows)
    scattered(where)
    for start, stop in ((0, 1), (70_000, 100_000), (3, 3), (99_999, 100_000)):
        wanted(where, start, stop)
    assert rows.sum(dtype=np.float64) == ROWS.sum(dtype=np.float64)
    assert resident("rows.npy") >= ROWS.nbytes - mmap.PAGESIZE
    let_go(where)
    assert resident("rows.npy") == 0
    np.testing.assert_array_equal(rows, ROWS)
