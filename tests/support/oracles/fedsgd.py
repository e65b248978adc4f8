"""FedSGD. McMahan et al. 2017 (the FedAvg paper), section 2: one full-batch gradient per client,
one step on the server."""

import numpy as np

from .problem import Problem, Result, full, result


def run(problem: Problem, *, rounds: int, server_lr: float = 0.1) -> Result:
    w, n = problem.start, problem.sizes
    params = []
    for t in range(rounds):
        S = problem.cohorts[t]
        g_k = [full(problem, w, k) for k in S]  # g_k = grad F_k(w_t), over all of the client's data
        w = w - server_lr * np.average(g_k, axis=0, weights=n[S])  # w <- w - eta sum_k n_k / n g_k
        params.append(w)
    return result(problem, params)
