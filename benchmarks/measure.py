"""Timing contenders in turn (A B A B), so that whatever else the machine does falls on all of them alike."""

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
        """The median of the ratios within a turn: a disturbance that lasts longer than a turn falls out."""
        return float(np.median(np.asarray(self.taken) / np.asarray(other.taken)))


def take_turns(
    contenders: dict[K, Callable[[], T]],
    repeats: int,
    budget: float = math.inf,
    cap: float = math.inf,
) -> dict[K, list[T]]:
    """What every contender returns, called ``repeats`` times in turn: three times, fewer where they take ``cap`` seconds, and more
    while the budget (seconds) lasts."""
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
    """Seconds until what a call returns is there: on the clock, and of all cores together."""
    start, computed = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return time.perf_counter() - start, time.process_time() - computed


def interleave(
    contenders: dict[str, Callable[[], Any]], repeats: int = 7, budget: float = 60.0
) -> dict[str, Timing]:
    """Times every contender ``repeats`` times in turn, after one call to warm up; fewer times where the budget (seconds) ends first."""
    for run in contenders.values():
        jax.block_until_ready(run())
    taken = take_turns(
        {name: partial(clocked, run) for name, run in contenders.items()}, repeats, budget
    )
    return {name: Timing(*zip(*each, strict=True)) for name, each in taken.items()}
