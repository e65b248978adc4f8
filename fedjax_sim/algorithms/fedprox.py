"""FedProx.

Memory: none. Upload: ``x - y``. Server: as FedAvg's. Local gradient: plus ``mu (y - x)``.
Law: ``mu = 0`` is FedAvg, bit for bit.
Reference: Li et al., "Federated Optimization in Heterogeneous Networks", 2020, Algorithm 2 and equation 2
(whose box counts clients alike: ``aggregator=unweighted_mean()``).
"""

from __future__ import annotations

import optax

from fedjax_sim.algorithms.fedavg import fedavg
from fedjax_sim.core.errors import not_negative
from fedjax_sim.core.types import Aggregator, Algorithm, Law, Objective
from fedjax_sim.optimizers.corrections import Optimizer, proximal


def fedprox(
    objective: Objective,
    *,
    lr: float | optax.Schedule = 0.1,
    mu: float = 0.01,
    local: Optimizer | None = None,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer | None = None,
) -> Algorithm:
    """FedAvg with a proximal term that keeps clients near the anchor; it applies in every round, the first included.

    Args:
      mu: weight of ``mu/2 |y - x|^2``. Stragglers' partial work comes from the sampler (``stragglers``).
      objective, lr, local, aggregator, server_optimizer: as for FedAvg.
    """
    not_negative("fedprox.mu", mu)
    chain = proximal(mu) if local is None else optax.chain(proximal(mu), local)
    return fedavg(
        objective, lr=lr, local=chain, aggregator=aggregator, server_optimizer=server_optimizer
    )


LAW = Law("mu = 0 is FedAvg, bit for bit", {"mu": 0.0}, tolerance=0.0)
