"""SCAFFOLD. Karimireddy et al., "SCAFFOLD: stochastic controlled averaging for federated
learning", ICML 2020, Algorithm 1."""

import numpy as np

from .problem import Problem, Result, result

STATE = {"c": lambda state, memory: state.server.c, "memory": lambda state, memory: memory}
VARIANTS = [{"option": "I"}, {"server_lr": 0.5}, {"option": "I", "server_lr": 0.5}]


def run(
    problem: Problem, *, rounds: int, lr: float = 0.1, server_lr: float = 1.0, option: str = "II"
) -> Result:
    x, N = problem.start, len(problem.y)
    c, c_i = (
        np.zeros_like(x),
        np.zeros((N, x.size)),
    )  # lines 1-2; c = mean of the c_i because all start at 0
    params, cs, tables = [], [], []
    for t in range(rounds):
        S = problem.cohorts[t]  # line 4
        dy, dc = [], []
        for i in S:  # line 6: every client gets the same x and c
            batches = problem.batches[t][i]
            y = x  # line 7
            for b in batches:  # line 8, K = number of batches
                y = y - lr * (
                    problem.gradient(y, i, b) - c_i[i] + c
                )  # lines 9-10: y_i <- y_i - eta_l (g_i(y_i) - c_i + c)
            if option == "I":  # line 12 (i): c_i+ = g_i(x), here over all batches of the round
                c_plus = np.average(
                    [problem.gradient(x, i, b) for b in batches],
                    axis=0,
                    weights=[len(b) for b in batches],
                )
            else:  # line 12 (ii): c_i+ = c_i - c + (x - y_i) / (K eta_l)
                c_plus = c_i[i] - c + (x - y) / (len(batches) * lr)
            dy.append(y - x)  # line 13
            dc.append(c_plus - c_i[i])
        c_i = c_i.copy()
        c_i[S] += np.array(dc)  # line 14: c_i <- c_i+, only for clients of S
        x = x + server_lr * np.mean(dy, axis=0)  # lines 16-17: x <- x + eta_g 1/|S| sum Delta y_i
        c = c + len(S) / N * np.mean(dc, axis=0)  # line 17: c <- c + |S|/N 1/|S| sum Delta c_i
        params.append(x)
        cs.append(c)
        tables.append(c_i)
    return result(problem, params, c=cs, memory=tables)
