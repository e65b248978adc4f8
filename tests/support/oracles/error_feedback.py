"""Top-k with error feedback on each client's update. Karimireddy et al., "Error feedback fixes
SignSGD and other gradient compression
schemes", ICML 2019, Algorithm 2 (EF-SGD); the step gamma g_t is a client's FedAvg update, and
top-k is taken leaf by leaf."""

import math

import numpy as np

from .fedavg import client_update
from .problem import Problem, Result, Vector, result

STATE = {"residual": lambda state, memory: memory.own, "sent": None}


def run(problem: Problem, *, rounds: int, lr: float = 0.1, fraction: float = 0.25) -> Result:
    x, n = problem.start, problem.sizes
    e = np.zeros((len(n), x.size))  # e_0 = 0 on every client
    params, residuals, sents = [], [], []
    for t in range(rounds):
        S = problem.cohorts[t]
        e, sent = e.copy(), np.zeros_like(e)
        for i in S:
            p = x - client_update(problem, t, i, x, lr) + e[i]  # p_t = gamma g_t + e_t
            sent[i] = top_k(problem, p, fraction)  # Delta_t = C(p_t)
            e[i] = p - sent[i]  # e_{t+1} = p_t - Delta_t
        x = x - np.average(sent[S], axis=0, weights=n[S])  # x_{t+1} = x_t - Delta_t
        params.append(x)
        residuals.append(e)
        sents.append(sent)
    return result(problem, params, residual=residuals, sent=sents)


def top_k(problem: Problem, p: Vector, fraction: float) -> Vector:
    """Of each leaf the ``max(1, round(fraction * size))`` entries of largest magnitude, the
    earlier one where two are equal."""
    kept, at = np.zeros_like(p), 0
    for shape in problem.shapes.values():
        size = math.prod(shape)
        k = max(1, round(fraction * size))
        largest = at + np.argsort(-np.abs(p[at : at + size]), kind="stable")[:k]
        kept[largest] = p[largest]
        at += size
    return kept
