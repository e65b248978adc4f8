"""FedProx's Synthetic(alpha, beta): logistic regression on clients that differ in model and in data, by two knobs."""

from __future__ import annotations

import numpy as np

from fedjax_sim.core.errors import not_negative, positive
from fedjax_sim.data.federation import federation, pool, split
from fedjax_sim.data.partition import generator
from fedjax_sim.data.population import Population, population
from fedjax_sim.runtime.devices import require_memory
from fedjax_sim.tasks.base import Task, classifier, classify

FEATURES, CLASSES = 60, 10
LEAST = 50
"""Examples of the smallest client."""


def synthetic(
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    iid: bool = False,
    clients: int = 30,
    test_fraction: float = 0.1,
    seed: int = 0,
    model: str = "logistic",
) -> Task:
    """Synthetic(alpha, beta), generated: ``x`` float32 ``[n, 60]``, ``y`` int32 in 0..9; clients' test sets pooled are the global one.

    Args:
      alpha: how much clients' true models differ; 0 still leaves each its own draw.
      beta: how much clients' inputs differ.
      iid: one true model and one distribution of inputs for all; alpha and beta then have no effect.
      clients: N, 30 in the paper. Sizes are log-normal and very unequal (the smallest near 50, the largest in the thousands).
      test_fraction: share of each client's examples for its test.
      seed: of everything; the paper's own draw was not seeded, so its very numbers cannot be had.
      model: a name of the model zoo; the paper's is ``"logistic"``.

    Reference: Li et al., "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127, section 5.1 and appendix C.1; where
    text and published generator differ (alpha and beta are standard deviations there), as the generator does.
    """
    train, test = split(generate(alpha, beta, iid, clients, seed), test_fraction, seed)
    return classify("synthetic", federation(train, test, pool(test)), classifier(model, CLASSES))


def generate(
    alpha: float, beta: float, iid: bool = False, clients: int = 30, seed: int = 0
) -> Population:
    """The generator itself, before any split.

    With ``k`` a client: ``n_k = floor(LogNormal(4, 2)) + 50``; ``u_k ~ N(0, alpha)``, ``W_k ~ N(u_k, 1)^(60 x 10)``,
    ``b_k ~ N(u_k, 1)^10``; ``B_k ~ N(0, beta)``, ``v_k ~ N(B_k, 1)^60``, ``x ~ N(v_k, diag(j^-1.2))``; ``y = argmax(x W_k + b_k)``.
    In the iid variant ``v_k = 0`` and all clients share ``W, b ~ N(0, 1)``.
    """
    positive("clients", clients)
    for name, deviation in (("alpha", alpha), ("beta", beta)):
        not_negative(name, deviation)
    rng, example = (
        generator(seed),
        3 * 4 * (FEATURES + 1),
    )  # bytes: as they are made, put together, and split
    require_memory("the clients' examples", clients * LEAST * example, "lower clients", "clients")
    sizes = rng.lognormal(4, 2, clients).astype(np.int64) + LEAST
    require_memory("the clients' examples", sizes.sum() * example, "lower clients", "clients")
    u, centre = rng.normal(0, abs(alpha), clients), rng.normal(0, abs(beta), clients)
    shared = rng.normal(0, 1, (FEATURES, CLASSES)), rng.normal(0, 1, CLASSES)
    spread = np.arange(1, FEATURES + 1) ** -0.6  # a standard deviation: the root of j^-1.2
    xs, ys = [], []
    for k in range(clients):
        v = np.zeros(FEATURES) if iid else rng.normal(centre[k], 1, FEATURES)
        w, b = (
            shared
            if iid
            else (rng.normal(u[k], 1, (FEATURES, CLASSES)), rng.normal(u[k], 1, CLASSES))
        )
        x = rng.normal(v, spread, (sizes[k], FEATURES))
        xs.append(x.astype(np.float32))
        ys.append(np.argmax(x @ w + b, axis=1).astype(np.int32))
    return population(np.concatenate(xs), np.concatenate(ys), np.cumsum([0, *sizes]))
