"""Ditto. Li et al., "Ditto: fair and robust federated learning through personalization", ICML
2021, Algorithm 1.

The global solver is FedAvg. The box leaves open which batches v_k sees: here the same as the
global solver's, so s = K. All v_k start at w^0."""

import numpy as np

from .fedavg import client_update
from .problem import Problem, Result, result

STATE = {"memory": lambda state, memory: memory.own.params}
VARIANTS = [{"lam": 0.7, "personal_lr": 0.05}]


def run(
    problem: Problem,
    *,
    rounds: int,
    lr: float = 0.1,
    lam: float = 0.1,
    personal_lr: float | None = None,
) -> Result:
    w, n = problem.start, problem.sizes
    eta = lr if personal_lr is None else personal_lr
    v = np.tile(w, (len(n), 1))  # {v_k^0}
    params, tables = [], []
    for t in range(rounds):
        S = problem.cohorts[t]
        w_k = [
            client_update(problem, t, k, w, lr) for k in S
        ]  # w_k <- UPDATE_GLOBAL(w^t, grad F_k)
        v = v.copy()
        for k in S:
            for b in problem.batches[t][k]:  # for s local iterations, with w^t as it was received:
                v[k] = v[k] - eta * (
                    problem.gradient(v[k], k, b) + lam * (v[k] - w)
                )  # v_k <- v_k - eta (grad F_k(v_k) + lambda (v_k - w^t))
        w = np.average(w_k, axis=0, weights=n[S])  # w^{t+1} <- AGGREGATE
        params.append(w)
        tables.append(v)
    return result(problem, params, memory=tables)
