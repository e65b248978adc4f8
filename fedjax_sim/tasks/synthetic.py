"""FedProx's Synthetic(alpha, beta): logistic regression on clients with different models and data.

``alpha`` sets how much the true models of clients differ, ``beta`` how much their inputs differ.
"""

from __future__ import annotations

import numpy as np

from fedjax_sim.core.annotations import Seed
from fedjax_sim.core.errors import not_negative, positive
from fedjax_sim.data.federation import federation, pool, split
from fedjax_sim.data.partition import generator
from fedjax_sim.data.population import Population, population
from fedjax_sim.runtime.devices import require_memory
from fedjax_sim.tasks.base import Task, classifier, classify

FEATURES = 60
CLASSES = 10
LEAST = 50
"""Smallest number of examples of a client."""


def synthetic(
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    iid: bool = False,
    clients: int = 30,
    test_fraction: float = 0.1,
    seed: Seed = 0,
    model: str = "logistic",
) -> Task:
    """Synthetic(alpha, beta), generated: ``x`` float32 ``[n, 60]``, ``y`` int32 in 0..9; the test
    sets of all clients together are the global test set.

    Args:
      alpha: standard deviation between the true models of clients; with 0 they still differ,
        because each client draws its own weights.
      beta: standard deviation between the input distributions of clients.
      iid: one true model and one input distribution for all clients; alpha and beta have no effect.
      clients: number of clients, N, 30 in the paper. Sizes are log-normal and very unequal: from
        about 50 to thousands of examples.
      test_fraction: share of each client's examples for its own test set.
      seed: seed of the data and of the split. The paper's generator had no seed, so its data cannot
        be reproduced.
      model: name of a model; the paper's is ``"logistic"``.

    Example:
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.synthetic(clients=3, seed=1)
      >>> task.data.train.x.shape[1:], task.data.train.x.dtype
      ((60,), dtype('float32'))
      >>> task.data.train.clients, len(task.data.global_test) == len(task.data.test.y)
      (3, True)

    Reference: Li et al., "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127,
    section 5.1 and appendix C.1. Where the text and the published generator differ, this follows
    the generator (there alpha and beta are standard deviations).
    """
    train, test = split(generate(alpha, beta, iid, clients, seed), test_fraction, seed)
    return classify("synthetic", federation(train, test, pool(test)), classifier(model, CLASSES))


def generate(
    alpha: float, beta: float, iid: bool = False, clients: int = 30, seed: int = 0
) -> Population:
    """Returns all examples of all clients, before any split.

    With ``k`` a client: ``n_k = floor(LogNormal(4, 2)) + 50``; ``u_k ~ N(0, alpha)``,
    ``W_k ~ N(u_k, 1)^(60 x 10)``, ``b_k ~ N(u_k, 1)^10``; ``B_k ~ N(0, beta)``,
    ``v_k ~ N(B_k, 1)^60``, ``x ~ N(v_k, diag(j^-1.2))``; ``y = argmax(x W_k + b_k)``. In the iid
    variant ``v_k = 0`` and all clients share ``W, b ~ N(0, 1)``.

    Args:
      alpha: standard deviation of ``u_k``.
      beta: standard deviation of ``B_k``.
      iid: whether all clients share one model and one input distribution.
      clients: number of clients, N.
      seed: seed of all draws.
    """
    positive("clients", clients)
    for name, deviation in (("alpha", alpha), ("beta", beta)):
        not_negative(name, deviation)
    rng = generator(seed)
    example_bytes = 3 * 4 * (FEATURES + 1)  # three copies: generated, concatenated, split
    require_memory(
        "the clients' examples", clients * LEAST * example_bytes, "lower clients", "clients"
    )
    sizes = rng.lognormal(4, 2, clients).astype(np.int64) + LEAST
    require_memory("the clients' examples", sizes.sum() * example_bytes, "lower clients", "clients")
    u = rng.normal(0, abs(alpha), clients)
    centre = rng.normal(0, abs(beta), clients)
    shared_w = rng.normal(0, 1, (FEATURES, CLASSES))
    shared_b = rng.normal(0, 1, CLASSES)
    deviations = np.arange(1, FEATURES + 1) ** -0.6  # square roots of j^-1.2
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    for k in range(clients):
        v = np.zeros(FEATURES) if iid else rng.normal(centre[k], 1, FEATURES)
        w = shared_w if iid else rng.normal(u[k], 1, (FEATURES, CLASSES))
        b = shared_b if iid else rng.normal(u[k], 1, CLASSES)
        x = rng.normal(v, deviations, (sizes[k], FEATURES))
        xs.append(x.astype(np.float32))
        ys.append(np.argmax(x @ w + b, axis=1).astype(np.int32))
    return population(np.concatenate(xs), np.concatenate(ys), np.cumsum([0, *sizes]))
