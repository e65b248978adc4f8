"""FedYogi. Reddi et al., ICLR 2021, Algorithm 2, the FedYogi line for v_t."""

import numpy as np

from .problem import Problem, Result, Vector
from .reddi import STATE, algorithm_2

__all__ = ["STATE", "VARIANTS", "run"]
VARIANTS = [{"b1": 0.0, "b2": 0.9, "weighting": "uniform"}]


def run(
    problem: Problem,
    *,
    rounds: int,
    lr: float = 0.1,
    server_lr: float = 0.1,
    b1: float = 0.9,
    b2: float = 0.99,
    tau: float = 1e-3,
    weighting: str = "examples",
) -> Result:
    def second_moment(v: Vector, delta: Vector) -> Vector:
        return v - (1 - b2) * delta**2 * np.sign(
            v - delta**2
        )  # v_t = v_{t-1} - (1 - beta_2) Delta_t^2 sign(v_{t-1} - Delta_t^2)

    return algorithm_2(
        problem,
        second_moment,
        rounds=rounds,
        lr=lr,
        server_lr=server_lr,
        b1=b1,
        tau=tau,
        weighting=weighting,
    )
