"""Mime with SGD and momentum as its base. Karimireddy et al., "Breaking the centralized barrier
for cross-device federated learning"
(Mime), NeurIPS 2021, Algorithm 1; base optimizer U(g, s) = (1 - beta) g + beta s, V(g, s) = (1 -
beta) g + beta s."""

import numpy as np

from .problem import Problem, Result, full, result

STATE = {"s": lambda state, memory: state.s}


def run(problem: Problem, *, rounds: int, lr: float = 0.1, beta: float = 0.9) -> Result:
    x = problem.start
    s = np.zeros_like(x)
    params, ss = [], []
    for t in range(rounds):
        S = problem.cohorts[t]
        c = np.mean(
            [full(problem, x, i) for i in S], axis=0
        )  # c = 1/|S| sum of grad f_i(x), full local gradients of this cohort
        y_i = []
        for i in S:  # every client gets the same x, s and c
            y = x
            for z in problem.batches[t][i]:
                g = (
                    problem.gradient(y, i, z) - problem.gradient(x, i, z) + c
                )  # g_i = grad f_i(y_i; z) - grad f_i(x; z) + c
                y = y - lr * (
                    (1 - beta) * g + beta * s
                )  # y_i <- y_i - eta U(g_i, s): s stays as it is all round
            y_i.append(y)
        s = (1 - beta) * c + beta * s  # s <- V(1/|S| sum of grad f_i(x), s)
        x = np.mean(y_i, axis=0)  # x <- 1/|S| sum of y_i
        params.append(x)
        ss.append(s)
    return result(problem, params, s=ss)
