"""``fedjax_sim.simulate``: the loop, into a folder if asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedjax_sim.engine.program import Program
from fedjax_sim.simulation import simulate as loop


def simulate(
    program: Program, variables: Any, *, rounds: int, out: str | Path | None = None, **options: Any
) -> loop.Result:
    """Runs a program for a number of rounds, into a folder if asked.

    Args:
      program: from :func:`fedjax_sim.make_round`.
      variables: the model to start from.
      rounds: rounds completed at the end of the run.
      out: a folder to write, the same that ``fedjax-sim run`` writes; ``fedjax-sim resume``,
        ``evaluate`` and ``export`` accept it. The program's parts must then come from registered
        factories (``fs.tasks.digits``, ``fs.fedavg``, ``fs.samplers.uniform``, ...), so that its
        configuration can be written. What ``evaluate`` does cannot be written: a resumed run
        evaluates as a configuration without a table ``[evaluation]`` does.
      **options: see :func:`fedjax_sim.simulation.simulate.simulate`: ``seed``, ``evaluate``,
        ``evaluate_every``, ``checkpoint_every``, ``callbacks``, ``progress``, ``console`` and,
        without ``out``, ``store``, ``writers``, ``resume``, ``history``, ``metadata``.

    Returns:
      The final state, the rows of all rounds, and why the run stopped.

    Raises:
      FedError: if a part cannot be named in a configuration, or the folder holds a run already; and
        what the loop raises.

    >>> import fedjax_sim as fs
    >>> from fedjax_sim.experiments.from_python import configuration_text
    >>> task = fs.tasks.quadratic(clients=4)
    >>> algorithm = fs.fedavg(task.objective, lr=0.1)
    >>> work = fs.local_work(batch_size=None)
    >>> program = fs.make_round(algorithm, fs.samplers.uniform(2), task.data.train, work)
    >>> print(configuration_text(program, rounds=3))
    seed = 0
    rounds = 3
    ...
    """
    if out is None:
        return loop.simulate(program, variables, rounds=rounds, **options)
    from fedjax_sim.experiments.from_python import simulate_into

    return simulate_into(program, variables, rounds, Path(out), options)
