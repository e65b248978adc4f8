"""Saving while the next round runs: each checkpoint holds the state of its own round.

The buffers of that state are reused by the rounds after it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks.fresh import fresh
from benchmarks.reliability.tally import Tally, from_json, to_json


def attack(rounds: int = 200) -> Tally:
    """Saves a checkpoint of each of this number of rounds."""
    return from_json(fresh("benchmarks.reliability.saving:attacked", rounds=rounds))


def attacked(rounds: int) -> dict[str, Any]:
    """Runs the rounds in this process twice: once with saving, once without."""
    import fedjax_sim as fs
    from fedjax_sim.core.errors import FedError

    fs.use_cores()
    program, variables = small()
    with tempfile.TemporaryDirectory() as top:
        store = fs.open_store(top, keep=None)
        for logical in states(program, variables, rounds):
            store.save(logical)
        store.wait()
        lost = []
        for round_, logical in enumerate(states(program, variables, rounds), 1):
            try:
                if fs.state_hash(store.restore(logical, round_).state) != fs.state_hash(logical):
                    lost.append(f"the checkpoint of round {round_} holds another state")
            except FedError as error:
                lost.append(str(error))
    return to_json(
        rounds,
        lost,
        f"a checkpoint of every round on {len(program.plan.devices)} devices, each hash compared",
    )


def small() -> tuple[Any, Any]:
    """Returns ``(program, variables)`` of an algorithm with client memory."""
    import jax

    import fedjax_sim as fs
    from fedjax_sim.algorithms import REGISTRY

    task = fs.tasks.REGISTRY["digits"](clients=8)
    algorithm = REGISTRY["scaffold"].factory(task.objective)
    program = fs.make_round(algorithm, fs.samplers.uniform(4), task.data.train, fs.local_work(32))
    return program, task.init(jax.random.key(0))


def states(program: Any, variables: Any, rounds: int) -> Iterator[Any]:
    """Yields the logical state after each round; the next round reuses its buffers."""
    state = program.init(variables, 0)
    for _ in range(rounds):
        state, _ = program.run(state)
        yield program.logical(state)


if __name__ == "__main__":
    print(attack())
