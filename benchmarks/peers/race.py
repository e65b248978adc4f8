"""Our round against each peer's, in turn in one run: same data, initial parameters and clients."""

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

SMOOTH = 1e-3
"""Largest ``distance`` (see :func:`compare`) that counts as the same model, for smooth models."""
KINKED = 2e-2
"""The same for models with ReLU.

Another order of summation flips a ReLU occasionally, and the flip stays: float32 and float64 runs
of the same steps end 0.006 apart on W2 (one flip, in one unit; without it 1e-5) and 0.01 on W7.
Mistakes are larger: on W1, W2 and W3 a dropped partial batch, an unweighted mean or another order
of the batches makes 0.04 to 0.7, and on W2 and W3 a learning rate wrong by one per cent 0.03 and
0.08.
"""
SMOOTH_MODELS = ("logistic", "char_lstm")

ROUNDS_TO_COMPARE = {"scaffold": 2}
"""Rounds after which models are compared, if more than one. SCAFFOLD's first round, all variates 0,
is FedAvg's."""


def race(
    workload: Workload,
    ours: Callable[[], Any],
    peers: Iterable[str] = tuple(PEERS),
    repeats: int = 5,
    limit: float = 300.0,
    budget: float = 60.0,
) -> dict[str, dict[str, Any]]:
    """Times our rounds against one peer after another.

    Args:
      workload: what both compute.
      ours: runs one of our rounds; its arrays are waited for.
      peers: names in ``PEERS``.
      repeats: timed rounds of each, in turn: three, fewer if they take twice the budget, and more
        as long as the budget allows.
      limit: seconds that one round of a peer may take.
      budget: seconds of all timed rounds against one peer.

    Returns:
      By name ``seconds`` and ``ours_s`` (medians), ``spread`` (lowest and highest of the peer),
      ``first_round_s``, ``setup_s``, ``peak_mb``, ``distance`` and ``difference`` (of its model
      from ours: see :func:`compare`) and ``version``; or ``reason``, why there is no time.
    """
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="fedjax-sim-job-") as top:
        folder = pathlib.Path(top)
        expected: tuple[dict[str, np.ndarray], ...] = ()
        for name in peers:
            peer = PEERS[name]
            if workload.name in peer.cannot:
                results[name] = {"reason": peer.cannot[workload.name]}
                continue
            if not expected:
                write_job(workload, folder)
                expected = (flat(workload.init().params), reference(workload))
                jax.block_until_ready(ours())  # compiled before it is timed
            log = cache() / "logs" / f"{workload.name}-{name}.log"
            try:
                with Contender(peer, folder, log) as contender:
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
    """Times one peer; the arguments are those of :func:`race`."""
    ready = contender.ready()
    first = [
        contender.ask("round", limit)["seconds"]
        for _ in range(ROUNDS_TO_COMPARE.get(workload.algorithm, 1))
    ]
    errors = compare(contender.ask("model", limit)["model"], *expected)
    if not errors["distance"] < (SMOOTH if workload.model in SMOOTH_MODELS else KINKED):
        raise PeerMissing(
            f"its model differs from ours: by {errors['distance']:.2g}, and "
            f"{errors['difference']:.2g} in one parameter"
        )
    if first[0] < budget:  # longer rounds need no warming up
        contender.ask("round", limit)  # programs may compile again for inputs that are outputs
        jax.block_until_ready(ours())
    turns = {
        "peer": lambda: contender.ask("round", limit)["seconds"],
        "ours": lambda: clocked(ours)[0],
    }
    taken = take_turns(turns, repeats, budget, 2 * budget)
    return {
        "seconds": float(np.median(taken["peer"])),
        "ours_s": float(np.median(taken["ours"])),
        "spread": [min(taken["peer"]), max(taken["peer"])],
        "first_round_s": first[0],
        "setup_s": ready["setup_s"],
        "peak_mb": round(contender.peak_mb),
        **errors,
        "version": ready["version"],
    }


def reference(workload: Workload) -> dict[str, np.ndarray]:
    """Our model when models are compared, without randomness: no shuffling, no dropout."""
    from fedjax_sim.engine import Engine
    from fedjax_sim.engine.program import make_round

    def loss(variables: Any, key: Any, batch: Any, train: bool) -> Any:
        return workload.objective.loss(variables, key, batch, False)

    deterministic = workload._replace(
        local_work=workload.local_work._replace(shuffle=False),
        objective=Objective(loss, workload.objective.statistics),
    )
    algorithm = deterministic.federated()
    program = make_round(
        algorithm,
        deterministic.sampler,
        deterministic.data,
        deterministic.local_work,
        Engine(lanes="auto", devices=1),
    )
    state = program.init(deterministic.init())
    for _ in range(ROUNDS_TO_COMPARE.get(workload.algorithm, 1)):
        state, _ = program.run(state)
    return flat(algorithm.variables(program.logical(state).algorithm).params)


def compare(
    path: str, init: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> dict[str, float]:
    """Compares a peer's model with ours, relative to how far ours has moved.

    Args:
      path: of the peer's model, an ``.npz``.
      init: our initial parameters.
      expected: our parameters after the same rounds.

    Returns:
      ``distance``, Euclidean over all parameters, and ``difference``, the largest error of one
      parameter over the largest move of one.
    """
    with np.load(path) as model:
        if set(model.files) != set(expected):
            raise PeerMissing(
                f"its model has other parameters: {sorted(set(model.files) ^ set(expected))[:4]}"
            )
        names = sorted(expected)
        error = np.concatenate([(model[name] - expected[name]).ravel() for name in names])
    moved = np.concatenate([(expected[name] - init[name]).ravel() for name in names])
    return {
        "distance": float(np.linalg.norm(error) / np.linalg.norm(moved)),
        "difference": float(np.abs(error).max() / np.abs(moved).max()),
    }
