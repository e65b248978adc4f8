"""FedProx. Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, Algorithm 2.

The box samples device k with probability p_k and averages alike; here, as in FedAvg, the cohort is
given and the average is weighted by n_k (p_k is proportional to n_k there, so the objective is the
same), and mu = 0 is FedAvg. The inexact minimiser of h_k is the client's SGD over its batches.
"""

import numpy as np

from .problem import Problem, Result, result


def run(problem: Problem, *, rounds: int, lr: float = 0.1, mu: float = 0.1) -> Result:
    w_t, n = problem.start, problem.sizes
    params = []
    for t in range(rounds):
        S = problem.cohorts[t]
        w_k = []
        for k in S:  # w_k ~ argmin_w h_k(w; w^t) = F_k(w) + mu/2 |w - w^t|^2
            w = w_t
            for b in problem.batches[t][k]:
                w = w - lr * (problem.gradient(w, k, b) + mu * (w - w_t))  # grad h_k(w; w^t)
            w_k.append(w)
        w_t = np.average(w_k, axis=0, weights=n[S])
        params.append(w_t)
    return result(problem, params)
