"""FedAvgM. Hsu, Qi and Brown, "Measuring the effects of non-identical data distribution for
federated visual classification", 2019,
section 4.3; the server's learning rate is 1 there."""

import numpy as np

from .fedavg import client_update
from .problem import Problem, Result, result

STATE = {"v": lambda state, memory: state.server.optimizer[0].trace}
VARIANTS = [{"server_lr": 0.5, "momentum": 0.7}]


def run(
    problem: Problem, *, rounds: int, lr: float = 0.1, server_lr: float = 1.0, momentum: float = 0.9
) -> Result:
    w, n = problem.start, problem.sizes
    v = np.zeros_like(w)
    params, vs = [], []
    for t in range(rounds):
        S = problem.cohorts[t]
        dw_k = [
            w - client_update(problem, t, k, w, lr) for k in S
        ]  # Delta w_k = w_t - w_k, positive along the gradient
        dw = np.average(dw_k, axis=0, weights=n[S])  # Delta w = sum_k n_k / n Delta w_k
        v = momentum * v + dw  # v <- beta v + Delta w
        w = w - server_lr * v  # w <- w - v
        params.append(w)
        vs.append(v)
    return result(problem, params, v=vs)
