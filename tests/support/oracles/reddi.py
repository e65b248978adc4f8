"""The box that FedAdagrad, FedYogi and FedAdam share, but for one line. Reddi et al., "Adaptive
federated optimization", ICLR 2021,
Algorithm 2. No bias correction anywhere. ``m`` keeps the paper's sign: it points from x to the
clients, downhill."""

from collections.abc import Callable

import numpy as np

from .fedavg import client_update
from .problem import Problem, Result, Vector, result

STATE = {
    "m": lambda state, memory: {
        name: -leaf for name, leaf in state.server.optimizer.m.items()
    },  # the simulator's m points uphill
    "v": lambda state, memory: state.server.optimizer.v,
}


def algorithm_2(
    problem: Problem,
    second_moment: Callable[[Vector, Vector], Vector],
    *,
    rounds: int,
    lr: float,
    server_lr: float,
    b1: float,
    tau: float,
    weighting: str,
) -> Result:
    x, n = problem.start, problem.sizes
    m, v = np.zeros_like(x), np.full_like(x, tau**2)  # v_{-1} >= tau^2: taken with equality
    params, ms, vs = [], [], []
    for t in range(rounds):
        S = problem.cohorts[t]
        delta_i = [
            client_update(problem, t, i, x, lr) - x for i in S
        ]  # Delta_i = x_{i,K} - x_t after K steps of SGD with eta_l
        # Delta_t = 1/|S| sum_i Delta_i ("uniform"); the paper's experiments weigh by the number of
        # examples ("examples")
        delta = np.average(delta_i, axis=0, weights={"uniform": None, "examples": n[S]}[weighting])
        m = b1 * m + (1 - b1) * delta  # m_t = beta_1 m_{t-1} + (1 - beta_1) Delta_t
        v = second_moment(v, delta)  # v_t, the line in which the three differ
        x = x + server_lr * m / (np.sqrt(v) + tau)  # x_{t+1} = x_t + eta m_t / (sqrt(v_t) + tau)
        params.append(x)
        ms.append(m)
        vs.append(v)
    return result(problem, params, m=ms, v=vs)
