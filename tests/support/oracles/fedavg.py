"""FedAvg. McMahan et al., "Communication-efficient learning of deep networks from decentralized
data", AISTATS 2017, Algorithm 1."""

import numpy as np

from .problem import Problem, Result, Vector, result


def run(problem: Problem, *, rounds: int, lr: float = 0.1) -> Result:
    w, n = problem.start, problem.sizes  # initialise w_0
    params = []
    for t in range(rounds):
        S = problem.cohorts[t]  # S_t
        w_k = [client_update(problem, t, k, w, lr) for k in S]  # each client of S_t in parallel
        w = np.average(
            w_k, axis=0, weights=n[S]
        )  # w <- sum_k n_k / m_t w_k with m_t = sum of n_k over S_t (the paper's erratum)
        params.append(w)
    return result(problem, params)


def client_update(problem: Problem, t: int, k: int, w: Vector, eta: float) -> Vector:
    """ClientUpdate(k, w): E epochs of SGD over batches of size B."""
    for b in problem.batches[t][k]:
        w = w - eta * problem.gradient(w, k, b)  # w <- w - eta grad l(w; b)
    return w
