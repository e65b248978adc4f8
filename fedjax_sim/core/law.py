"""Laws: identities that test an algorithm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fedjax_sim.core.types import PyTree


class Law(NamedTuple):
    """An identity that tests an algorithm: with some settings it equals another algorithm.

    Attributes:
      says: the law in words, for the table of algorithms.
      when: settings of this algorithm.
      equals: name of the algorithm that it then equals.
      given: settings of that other algorithm.
      local_work: local work of both, if the law needs particular work, such as
        ``{"batch_size": None, "epochs": 1}``.
      rounds: number of rounds for which the law holds.
      tolerance: relative tolerance; 0 requires the same bits.
      conserved: ``(algorithm state, memory [N, ...]) -> (a, b)``: two pytrees that are equal after
        every round; None if there are none.

    Example:
      >>> import fedjax_sim as fs
      >>> fs.Law("mu = 0 is FedAvg", when={"mu": 0.0}).equals
      'fedavg'
    """

    says: str
    when: dict[str, Any] = {}
    equals: str = "fedavg"
    given: dict[str, Any] = {}
    local_work: dict[str, Any] = {}
    rounds: int = 3
    tolerance: float = 1e-5
    conserved: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]] | None = None
