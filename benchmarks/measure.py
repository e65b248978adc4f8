"""Timing contenders in turn (A B A B), so that other work on the machine slows all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

K = TypeVar("K")
T = TypeVar("T")


class Timing(NamedTuple):
    """Seconds that one contender took, turn by turn."""

    taken: tuple[float, ...]
    computed: tuple[float, ...] = ()
    """Seconds of processor time, over all cores."""

    @property
    def median(self) -> float:
        return float(np.median(self.taken))

    @property
    def low(self) -> float:
        return min(self.taken)

    @property
    def high(self) -> float:
        return max(self.taken)

    @property
    def cores(self) -> float:
        """How many cores were busy on average."""
        return sum(self.computed) / sum(self.taken)

    def over(self, other: Timing) -> float:
        """The median of ratios within a turn, which longer disturbances do not change."""
        return float(np.median(np.asarray(self.taken) / np.asarray(other.taken)))


def take_turns(
    contenders: dict[K, Callable[[], T]],
    repeats: int,
    budget: float = math.inf,
    cap: float = math.inf,
) -> dict[K, list[T]]:
    """Calls every contender ``repeats`` times in turn, unless time runs out.

    Args:
      contenders: functions by name.
      repeats: the largest number of turns.
      budget: seconds after which no turn begins, except for the first three.
      cap: seconds after which no turn begins, except for the first.

    Returns:
      What each contender returned, turn by turn.
    """
    taken: dict[K, list[T]] = {name: [] for name in contenders}
    begun = time.perf_counter()
    for turn in range(repeats):
        spent = time.perf_counter() - begun
        if (turn >= 3 and spent > budget) or (turn and spent > cap):
            break
        for name, run in contenders.items():
            taken[name].append(run())
    return taken


def clocked(run: Callable[[], Any]) -> tuple[float, float]:
    """Returns the seconds until a call's arrays are computed: on the clock, and of all cores."""
    start = time.perf_counter()
    start_cpu = time.process_time()
    jax.block_until_ready(run())
    return time.perf_counter() - start, time.process_time() - start_cpu


def interleave(
    contenders: dict[str, Callable[[], Any]], repeats: int = 7, budget: float = 60.0
) -> dict[str, Timing]:
    """Times every contender in turn, after one call to warm up.

    Args:
      contenders: functions by name; their arrays are waited for.
      repeats: timings of each at most.
      budget: seconds after which no turn begins, except for the first three.
    """
    for run in contenders.values():
        jax.block_until_ready(run())
    taken = take_turns(
        {name: partial(clocked, run) for name, run in contenders.items()}, repeats, budget
    )
    return {name: Timing(*zip(*seconds, strict=True)) for name, seconds in taken.items()}
