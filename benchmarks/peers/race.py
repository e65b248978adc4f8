"""Our round against each peer's, in turn in one run: the same bytes, the same initial parameters, the same clients."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from benchmarks.measure import clocked, take_turns
from benchmarks.peers import PEERS
from benchmarks.peers.contender import Contender
from benchmarks.peers.environment import PeerMissing, cache
from benchmarks.peers.job import flat, write_job
from benchmarks.workloads import Workload
from fedjax_sim.core.types import Objective

SMOOTH, KINKED = 1e-3, 2e-2
"""Largest ``distance`` (see :func:`compare`) that counts as the same model; the second for models with ReLU.

Another order of summation alone flips a ReLU now and then, and the flip stays: float32 and float64 runs of the very same steps end 0.006
apart on W2 (one flip, in one unit; without it 1e-5) and 0.01 on W7. Mistakes are larger: on W1, W2 and W3 a partial batch dropped, an
unweighted mean or another order of the batches makes 0.04 to 0.7, and on W2 and W3 a learning rate wrong by one per cent 0.03 and 0.08.
"""

ROUNDS_TO_ALIKE = {"scaffold": 2}
"""Rounds after which models are compared, where it is not one. SCAFFOLD's first round, all variates 0, is FedAvg's."""


def race(
    workload: Workload,
    ours: Callable[[], Any],
    peers: Iterable[str] = tuple(PEERS),
    repeats: int = 5,
    limit: float = 300.0,
    budget: float = 60.0,
) -> dict[str, dict[str, Any]]:
    """Races ours against one peer after another.

    Args:
      workload: what both compute.
      ours: runs one round of ours; what it returns is waited for.
      peers: names in ``PEERS``.
      repeats: timed rounds of each, in turn: three, fewer where they take twice the budget, and more while it lasts.
      limit: seconds that one round of a peer may take.
      budget: seconds of all timed rounds against one peer.

    Returns:
      By name ``seconds`` and ``ours_s`` (medians), ``spread`` (lowest and highest of the peer), ``first_round_s``, ``setup_s``,
      ``peak_mb``, ``distance`` and ``difference`` (of its model from ours: see :func:`compare`) and ``version``; or ``reason``, why
      there is no time to quote.
    """
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="fedjax-sim-job-") as place:
        folder = pathlib.Path(place)
        expected: tuple[dict[str, np.ndarray], ...] = ()
        for name in peers:
            peer = PEERS[name]
            if workload.name in peer.cannot:
                results[name] = {"reason": peer.cannot[workload.name]}
                continue
            if not expected:
                write_job(workload, folder)
                expected = flat(workload.init().params), reference(workload)
                jax.block_until_ready(ours())  # compiled before it is timed
            try:
                with Contender(
                    peer, folder, cache() / "logs" / f"{workload.name}-{name}.log"
                ) as contender:
                    results[name] = _against(
                        contender, workload, ours, expected, repeats, limit, budget
                    )
            except PeerMissing as missing:
                results[name] = {"reason": str(missing)}
    return results


def _against(
    contender: Contender,
    workload: Workload,
    ours: Callable[[], Any],
    expected: tuple[dict[str, np.ndarray], ...],
    repeats: int,
    limit: float,
    budget: float,
) -> dict[str, Any]:
    """One peer's result."""
    ready = contender.ready()
    first = [
        contender.ask("round", limit)["seconds"]
        for _ in range(ROUNDS_TO_ALIKE.get(workload.algorithm, 1))
    ]
    apart = compare(contender.ask("model", limit)["model"], *expected)
    if not apart["distance"] < (SMOOTH if workload.model in ("logistic", "char_lstm") else KINKED):
        raise PeerMissing(
            "its model differs from ours: by {distance:.2g}, and {difference:.2g} in one parameter".format(
                **apart
            )
        )
    if first[0] < budget:
        contender.ask("round", limit)  # what compiles only once its inputs are its own outputs
        jax.block_until_ready(ours())  # a round that takes longer needs no warming up
    turns = {
        "theirs": lambda: contender.ask("round", limit)["seconds"],
        "ours": lambda: clocked(ours)[0],
    }
    theirs, mine = take_turns(turns, repeats, budget, 2 * budget).values()
    return {
        "seconds": float(np.median(theirs)),
        "ours_s": float(np.median(mine)),
        "spread": [min(theirs), max(theirs)],
        "first_round_s": first[0],
        "setup_s": ready["setup_s"],
        "peak_mb": round(contender.peak_mb),
        **apart,
        "version": ready["version"],
    }


def reference(workload: Workload) -> dict[str, np.ndarray]:
    """Our model after the rounds at which models are compared, with nothing drawn: no shuffling, no dropout."""
    from fedjax_sim.engine import Engine
    from fedjax_sim.engine.program import make_round

    def loss(variables: Any, key: Any, batch: Any, train: bool) -> Any:
        return workload.objective.loss(variables, key, batch, False)

    still = workload._replace(
        local_work=workload.local_work._replace(shuffle=False),
        objective=Objective(loss, workload.objective.statistics),
    )
    algorithm = still.federated()
    program = make_round(
        algorithm, still.sampler, still.data, still.local_work, Engine(lanes="auto", devices=1)
    )
    state = program.init(still.init())
    for _ in range(ROUNDS_TO_ALIKE.get(workload.algorithm, 1)):
        state, _ = program.run(state)
    return flat(algorithm.variables(program.logical(state).algorithm).params)


def compare(
    path: str, init: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> dict[str, float]:
    """How far their model is from ours, relative to how far ours has moved: ``distance``, Euclidean over all parameters, and
    ``difference``, the largest of one parameter over the largest move of one."""
    with np.load(path) as theirs:
        if set(theirs.files) != set(expected):
            raise PeerMissing(
                f"its model has other parameters: {sorted(set(theirs.files) ^ set(expected))[:4]}"
            )
        names = sorted(expected)
        apart = np.concatenate([(theirs[name] - expected[name]).ravel() for name in names])
    moved = np.concatenate([(expected[name] - init[name]).ravel() for name in names])
    largest = np.abs(apart).max() / np.abs(moved).max()
    return {
        "distance": float(np.linalg.norm(apart) / np.linalg.norm(moved)),
        "difference": float(largest),
    }
