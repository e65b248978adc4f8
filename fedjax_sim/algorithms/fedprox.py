"""FedProx.

Memory: none.
Upload: ``x - y``. The local gradient is ``grad f_i(y) + mu (y - x)``.
Server: FedAvg's.
Law: ``mu = 0`` is FedAvg, bit for bit.
Reference: Li et al., "Federated Optimization in Heterogeneous Networks", 2020, Algorithm 2 and
equation 2 (whose algorithm weights clients equally: ``aggregator=unweighted_mean()``).
"""

from __future__ import annotations

from typing import Annotated

import optax

from fedjax_sim.algorithms.fedavg import fedavg
from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import not_negative
from fedjax_sim.core.law import Law
from fedjax_sim.core.types import Aggregator, Algorithm, Objective
from fedjax_sim.optimizers.corrections import Optimizer, proximal


def fedprox(
    objective: Objective,
    *,
    lr: Annotated[float | optax.Schedule, MAY_CHANGE_ON_RESUME] = 0.1,
    mu: float = 0.01,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer | None = None,
) -> Algorithm:
    """FedAvg with a proximal term, which keeps clients near the anchor in every round.

    For the stragglers of the paper, whose partial work is aggregated, use the sampler's wrapper
    ``stragglers``.

    Args:
      objective: the function that clients minimise.
      lr: local learning rate (eta_l), or a schedule over the local steps of one round.
      mu: weight of the term ``mu/2 |y - x|^2``, from 0 on.
      local: optax transform of the local gradient before the step, such as clipping or
        ``optax.trace(0.9)``.
      aggregator: how uploads are combined; by default the mean weighted by examples.
      server_optimizer: optax optimizer on the averaged pseudo-gradient; by default SGD with rate 1,
        which is plain averaging.

    Example:
      >>> import jax
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.quadratic()
      >>> algorithm = fs.fedprox(task.objective, mu=0.1)
      >>> state = algorithm.init(task.init(jax.random.key(0)))
      >>> type(state.server).__name__
      'OptimizerServerState'
    """
    not_negative("fedprox.mu", mu)
    transform = proximal(mu) if local is None else optax.chain(proximal(mu), local)
    return fedavg(
        objective, lr=lr, local=transform, aggregator=aggregator, server_optimizer=server_optimizer
    )


LAW = Law("mu = 0 is FedAvg, bit for bit", when={"mu": 0.0}, tolerance=0.0)
