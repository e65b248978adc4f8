"""Closed forms: on quadratics ``f_i(x) = 1/2 (x - b_i)' A_i (x - b_i)`` the limits are known."""

from functools import cache

import jax
import numpy as np
import pytest
from federation import machine, play, script, scripted
from oracles.theory import power

from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.data.batching import local_work
from fedjax_sim.tasks import quadratic
from fedjax_sim.tasks.quadratic import averaging_fixed_point, contractions, optimum, parts

pytestmark = pytest.mark.xdist_group("theory")  # one worker, so that tests share programs

N, D, K, LR = 6, 4, 5, 0.3
EYE = np.eye(D)
OPTIONS = pytest.mark.parametrize("option", ["I", "II"])

# Clients hold 1, 2, 3, 1, 2, 3 equal examples, so that weights by examples differ from equal ones.
OWN, SHARED = (
    quadratic(clients=N, dimension=D, condition=4.0, seed=2, copies=3, curvature=kind)
    for kind in ("own", "shared")
)
START = OWN.init(jax.random.key(0))

# Six cohorts of four, with absent rows; together they contain every client.
ALL = scripted([range(N)] * 6)
SOME = scripted(
    [
        [0, 1, 2, 3, N, N],
        [4, N, 5, 0, N, N],
        [1, 2, N, 3, 4, N],
        [5, N, N, 0, N, N],
        [2, 3, 4, 5, N, N],
        [N, 1, 0, N, N, 5],
    ]
)


@cache
def compiled(name, work=(("steps", K),), **settings):
    algorithm = REGISTRY[name].factory(OWN.objective, **settings)
    return machine(algorithm, script(N, 6), OWN.data.train, local_work(**dict(work)))


def run(program, data, rounds, cohorts=ALL):
    """Logical states after every round."""
    return [state for state, _ in play(program, START, data, rounds, cohorts)]


def models(states):
    """The model after every round, ``[rounds, D]``."""
    servers = [getattr(state.algorithm, "server", state.algorithm) for state in states]
    return np.stack([getattr(server, "served", server).variables.params["x"] for server in servers])


def near(have, want, tolerance=1e-5):
    np.testing.assert_allclose(have, want, rtol=0, atol=tolerance)


def solution(data, p):
    """Where the mean of the losses, weighted by ``p``, is least."""
    A, b, _ = parts(data)
    return np.linalg.solve(np.einsum("i,ijk->jk", p, A), np.einsum("i,ijk,ik->j", p, A, b))


ALIKE = np.full(N, 1 / N)


# ---------------------------------------------------------------------------------------- averaging


def test_t1_fedavg_goes_to_its_biased_fixed_point_at_the_predicted_rate():
    data = OWN.data.train
    biased = averaging_fixed_point(data, LR, K)
    xs = models(run(compiled("fedavg", lr=LR), data, 60))
    contraction = np.einsum("i,ijk->jk", parts(data)[2], contractions(data, LR, K))
    near(xs, [biased + power(contraction, t + 1) @ (0 - biased) for t in range(60)])
    near(xs[-1], biased)
    assert np.linalg.norm(biased - optimum(data)) > 0.03


def test_t1_fedavg_is_unbiased_where_hessians_are_equal():
    near(
        models(run(compiled("fedavg", lr=LR), SHARED.data.train, 60))[-1],
        optimum(SHARED.data.train),
    )


def test_t2_fedavg_favours_clients_that_take_more_steps():
    data = SHARED.data.train
    last = models(
        run(compiled("fedavg", lr=LR, work=(("batch_size", 1), ("epochs", 2))), data, 60)
    )[-1]
    near(last, averaging_fixed_point(data, LR, 2 * data.sizes))
    assert np.linalg.norm(last - optimum(data)) > 0.03


def test_t7_fedsgd_is_gradient_descent_on_the_pooled_data():
    data = OWN.data.train
    A, _, p = parts(data)
    star, rate = optimum(data), EYE - 0.5 * np.einsum("i,ijk->jk", p, A)
    xs = models(run(compiled("fedsgd", server_lr=0.5), data, 20))
    near(xs, [star + power(rate, t + 1) @ (0 - star) for t in range(20)])


def test_t7_fedavg_of_identical_clients_is_one_machine():
    data = SHARED.data.train
    same = data._replace(x={"A": data.x["A"], "b": np.repeat(data.x["b"][:1], len(data.x["b"]), 0)})
    A, b, _ = parts(same)
    want = [b[0] + power(EYE - LR * A[0], K * (t + 1)) @ (0 - b[0]) for t in range(10)]
    for cohorts in (ALL, SOME):
        near(models(run(compiled("fedavg", lr=LR), same, 10, cohorts)), want)


# ----------------------------------------------------------------------------------------- SCAFFOLD


@OPTIONS
@pytest.mark.parametrize(("cohorts", "rounds"), [(ALL, 150), (SOME, 600)])
def test_t3a_scaffold_reaches_the_optimum_of_the_plain_mean_whatever_the_hessians(
    option, cohorts, rounds
):
    data = OWN.data.train
    A, b, _ = parts(data)
    star = solution(data, ALIKE)
    last = run(compiled("scaffold", lr=LR, option=option), data, rounds, cohorts)[-1:]
    near(models(last), star[None])
    near(last[0].algorithm.server.c["x"], 0)
    near(last[0].memory["x"], np.einsum("ijk,ik->ij", A, star - b))  # c_i = grad f_i(x*)
    for other in (averaging_fixed_point(data, LR, K), optimum(data)):
        assert np.linalg.norm(other - star) > 0.03


@OPTIONS
def test_t3b_with_equal_hessians_scaffold_is_gradient_descent_on_one_machine(option):
    A, b, _ = parts(SHARED.data.train)
    star = b.mean(0)
    xs = models(run(compiled("scaffold", lr=LR, option=option), SHARED.data.train, 8))
    near(xs, [star + power(EYE - LR * A[0], K * (t + 1)) @ (0 - star) for t in range(8)])


@OPTIONS
def test_t3c_c_is_the_mean_of_all_c_i_also_where_rows_of_the_cohort_are_absent(option):
    cs = []
    for state in run(compiled("scaffold", lr=LR, option=option), OWN.data.train, 9, SOME):
        cs.append(state.algorithm.server.c["x"])
        near(cs[-1], state.memory["x"].mean(0), 1e-6)
    assert np.abs(cs).max(1).min() > 1e-3


@OPTIONS
def test_t3d_with_one_local_step_scaffold_is_plain_gradient_descent(option):
    data = OWN.data.train
    star, rate = solution(data, ALIKE), EYE - LR * parts(data)[0].mean(0)
    near(
        models(run(one_step(option), data, 8)),
        [star + power(rate, t + 1) @ (0 - star) for t in range(8)],
    )


def test_t3d_with_one_local_step_the_options_agree_under_sampling():
    one, two = (run(one_step(option), OWN.data.train, 8, SOME) for option in ("I", "II"))
    near(models(one), models(two))
    near([state.memory["x"] for state in one], [state.memory["x"] for state in two])


def one_step(option):
    return compiled("scaffold", lr=LR, option=option, work=(("steps", 1),))


# --------------------------------------------------------------------------------------- the others


def test_t4_fedprox_goes_to_the_fixed_point_of_its_inexact_proximal_steps():
    data, mu = OWN.data.train, 1.0
    A, b, p = parts(data)
    inverse = np.linalg.inv(A + mu * EYE)
    rest = np.stack(
        [power(EYE - LR * (a + mu * EYE), K) for a in A]
    )  # y_i = prox_i + rest (x - prox_i)
    toward = np.einsum(
        "i,ijk,ikl,il->j", p, EYE - rest, inverse @ A, b
    )  # prox_i = inverse (A_i b_i + mu x)
    kept = np.einsum("i,ijk->jk", p, (EYE - rest) @ inverse * mu + rest)
    fixed = np.linalg.solve(EYE - kept, toward)
    exact = np.linalg.solve(
        np.einsum("i,ijk->jk", p, inverse @ A), np.einsum("i,ijk,ik->j", p, inverse @ A, b)
    )
    near(models(run(compiled("fedprox", lr=LR, mu=mu), data, 100))[-1], fixed)
    for other in (exact, optimum(data), averaging_fixed_point(data, LR, K)):
        assert np.linalg.norm(other - fixed) > 1e-3


def test_t6_mime_without_momentum_has_the_rate_of_fresh_control_variates():
    data = OWN.data.train
    A, _, _ = parts(data)
    S = sum(power(EYE - LR * a, j) for a in A for j in range(K)) / N
    star = solution(data, ALIKE)
    xs = models(run(compiled("mime", lr=LR, beta=0.0), data, 15))
    near(xs, [star + power(EYE - LR * S @ A.mean(0), t + 1) @ (0 - star) for t in range(15)])


def test_t10_what_error_feedback_sent_and_kept_is_what_was_wanted():
    data = OWN.data.train
    _, b, p = parts(data)
    states = run(compiled("error_feedback", lr=LR, fraction=0.3), data, 10)
    x, kept = (
        np.stack([np.zeros(D), *models(states)]),
        np.stack([np.zeros(D), *(p @ state.memory.own["x"] for state in states)]),
    )
    moved = EYE - contractions(data, LR, K)
    wanted = [np.einsum("i,ijk,ik->j", p, moved, x[t] - b) for t in range(10)]
    near(x[:-1] - x[1:] + kept[1:] - kept[:-1], wanted)
    assert np.abs(kept[1:]).max(1).min() > 0.01


def test_t13_ditto_interpolates_between_the_federation_and_the_client():
    data, lam = SHARED.data.train, 0.7
    A, b, p = parts(data)
    own = run(compiled("ditto", lr=LR, lam=lam), data, 100)[-1].memory.own.params["x"]
    near(
        own,
        [
            np.linalg.solve(a + lam * EYE, a @ b_i + lam * (p @ b))
            for a, b_i in zip(A, b, strict=True)
        ],
    )
