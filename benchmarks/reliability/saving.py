"""Saving while the next round runs: each checkpoint holds the state of its round, though its buffers were given to the rounds after it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks.fresh import fresh
from benchmarks.reliability.tally import Tally, tally, told


def attack(rounds: int = 200) -> Tally:
    """So many checkpoints, one of every round."""
    return tally(fresh("benchmarks.reliability.saving:attacked", rounds=rounds))


def attacked(rounds: int) -> dict[str, Any]:
    """The same, here: once with saving, once without."""
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
    return told(
        rounds,
        lost,
        f"a checkpoint of every round on {len(program.plan.devices)} devices, each hash compared",
    )


def small() -> tuple[Any, Any]:
    """A program whose clients remember something, and where it starts."""
    import jax

    import fedjax_sim as fs
    from fedjax_sim.algorithms import REGISTRY

    task = fs.tasks.REGISTRY["digits"](clients=8)
    made = REGISTRY["scaffold"].factory(task.objective)
    return fs.make_round(
        made, fs.samplers.uniform(4), task.data.train, fs.local_work(32)
    ), task.init(jax.random.key(0))


def states(program: Any, variables: Any, rounds: int) -> Iterator[Any]:
    """The logical state after each round; the next one has begun to take its buffers when the next one is asked for."""
    state = program.init(variables, 0)
    for _ in range(rounds):
        state, _ = program.run(state)
        yield program.logical(state)


if __name__ == "__main__":
    print(attack())
