"""FedAdagrad. Reddi et al., ICLR 2021, Algorithm 2, the FedAdagrad line for v_t; beta_1 = 0 in the
paper's experiments."""

from .problem import Problem, Result, Vector
from .reddi import STATE, algorithm_2

__all__ = ["STATE", "VARIANTS", "run"]
VARIANTS = [{"b1": 0.5, "weighting": "uniform"}]


def run(
    problem: Problem,
    *,
    rounds: int,
    lr: float = 0.1,
    server_lr: float = 0.1,
    b1: float = 0.0,
    tau: float = 1e-3,
    weighting: str = "examples",
) -> Result:
    def second_moment(v: Vector, delta: Vector) -> Vector:
        return v + delta**2  # v_t = v_{t-1} + Delta_t^2

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
