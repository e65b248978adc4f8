"""The numpy oracles against theory, in float64: algorithms with corrections or client memory."""

import numpy as np
import pytest
from oracles import ORACLES, full, quadratics, softmax
from oracles.error_feedback import top_k
from oracles.theory import ETA, EYE, SIZES, K, close, instance, optimum, path, power, shares

# ----------------------------------------------------------------------------------------- SCAFFOLD

OPTIONS = pytest.mark.parametrize("option", ["I", "II"])


def scaffold(problem, rounds, option, **settings):
    return ORACLES["scaffold"](problem, rounds=rounds, **{"lr": ETA, **settings}, option=option)


@OPTIONS
def test_t3a_scaffold_reaches_the_optimum_of_the_plain_mean(option):
    A, b, start = instance()
    problem = quadratics(A, b, start, SIZES, rounds=300, steps=K)
    star = optimum(A, b, np.full(4, 0.25))
    result = scaffold(problem, 300, option)
    close(path(result)[-1], star, 1e-12)
    close(path(result, "c")[-1], 0, 1e-12)
    close(
        path(result, "memory")[-1], [a @ (star - b_i) for a, b_i in zip(A, b, strict=True)], 1e-12
    )  # c_i = grad f_i(x*)
    assert np.linalg.norm(path(ORACLES["fedavg"](problem, rounds=300, lr=ETA))[-1] - star) > 0.1


@OPTIONS
def test_t3a_scaffold_reaches_the_optimum_under_sampling_too(option):
    A, b, start = instance()
    problem = quadratics(A, b, start, SIZES, rounds=2000, cohort=3, steps=K)
    close(
        path(scaffold(problem, 2000, option, lr=0.05, server_lr=0.5))[-1],
        optimum(A, b, np.full(4, 0.25)),
        1e-9,
    )


@OPTIONS
def test_t3b_with_equal_hessians_scaffold_is_centralised_gradient_descent(option):
    A, b, start = instance(equal=True)
    star = b.mean(0)
    xs = path(scaffold(quadratics(A, b, start, SIZES, rounds=6, steps=K), 6, option))
    close(
        xs, [star + power(EYE - ETA * A[0], K * (t + 1)) @ (start - star) for t in range(6)], 1e-13
    )


@OPTIONS
def test_t3c_c_stays_the_mean_of_all_c_i_under_sampling(option):
    result = scaffold(softmax(rounds=7), 7, option, server_lr=0.7)
    c = path(result, "c")
    close(c, path(result, "memory").mean(1), 1e-14)
    assert np.abs(c).min(1).max() > 1e-4


@OPTIONS
def test_t3d_with_one_full_step_scaffold_is_gradient_descent(option):
    problem = softmax(rounds=5, cohort=None, epochs=1)
    x, expected = problem.start, []
    for _ in range(5):
        x = x - 0.7 * ETA * np.mean([full(problem, x, i) for i in range(5)], 0)
        expected.append(x)
    close(path(scaffold(problem, 5, option, server_lr=0.7)), expected, 1e-14)


def test_t3d_with_one_full_step_the_options_agree_under_sampling():
    problem = softmax(rounds=7, epochs=1)
    one, two = scaffold(problem, 7, "I"), scaffold(problem, 7, "II")
    close(path(one), path(two), 1e-14)
    close(path(one, "memory"), path(two, "memory"), 1e-14)


@OPTIONS
def test_t3e_before_any_control_variate_is_known_scaffold_is_fedavg(option):
    problem = softmax((6, 6, 6), rounds=1, cohort=2, batch_size=4, epochs=2)
    close(path(scaffold(problem, 1, option)), path(ORACLES["fedavg"](problem, rounds=1)), 1e-14)


@OPTIONS
def test_t3f_with_one_client_and_one_full_step_scaffold_is_saga(option):
    problem = softmax(rounds=12, cohort=1, epochs=1)._replace(
        cohorts=[[i] for i in (2, 0, 4, 2, 2, 1, 3, 0, 0, 4, 3, 1)]
    )
    x, table, expected = problem.start, np.zeros((5, 15)), []
    for (i,) in problem.cohorts:
        g = full(problem, x, i)
        x = x - ETA * (g - table[i] + table.mean(0))
        table[i] = g
        expected.append(x)
    close(path(scaffold(problem, 12, option)), expected, 1e-14)


def test_option_two_keeps_the_mean_local_gradient_and_option_one_the_full_gradient():
    problem, seen = softmax(rounds=1), []

    def gradient(params, i, rows):
        seen.append((i, problem.gradient(params, i, rows)))
        return seen[-1][1]

    memory = path(scaffold(problem._replace(gradient=gradient), 1, "II"), "memory")[0]
    close(
        memory[:3], [np.mean([g for i, g in seen if i == client], 0) for client in range(3)], 1e-14
    )
    close(
        path(scaffold(problem, 1, "I"), "memory")[0][:3],
        [full(problem, problem.start, i) for i in range(3)],
        1e-14,
    )


# --------------------------------------------------------------------------------------------- Mime


def test_t6_mime_without_momentum_has_the_rate_of_fresh_control_variates():
    A, b, start = instance()
    star, mean = optimum(A, b, np.full(4, 0.25)), A.mean(0)
    S = sum(power(EYE - ETA * a, j) for a in A for j in range(K)) / 4
    xs = path(
        ORACLES["mime"](
            quadratics(A, b, start, SIZES, rounds=20, steps=K), rounds=20, lr=ETA, beta=0.0
        )
    )
    close(
        xs, [star + power(EYE - ETA * S @ mean, t + 1) @ (start - star) for t in range(20)], 1e-13
    )


def test_mime_with_one_step_on_any_batch_is_full_batch_momentum_sgd_on_one_machine():
    problem, beta = (
        softmax(rounds=5, cohort=None, batch_size=2, steps=1),
        0.6,
    )  # grad f_i(y; z) - grad f_i(x; z) = 0 in the first step
    x, s, expected = problem.start, np.zeros(15), []
    for _ in range(5):
        s = (1 - beta) * np.mean([full(problem, x, i) for i in range(5)], 0) + beta * s
        x = x - ETA * s
        expected.append(x)
    result = ORACLES["mime"](problem, rounds=5, lr=ETA, beta=beta)
    close(path(result), expected, 1e-14)
    close(path(result, "s")[-1], s, 1e-14)


def test_mime_with_equal_hessians_takes_k_steps_of_the_whole_with_frozen_momentum():
    (A, b, start), beta = instance(equal=True), 0.6
    x, s, expected = start, 0, []
    for _ in range(8):
        y = x
        for _ in range(K):
            y = y - ETA * ((1 - beta) * A[0] @ (y - b.mean(0)) + beta * s)
        s = (1 - beta) * A[0] @ (x - b.mean(0)) + beta * s
        x = y
        expected.append(x)
    close(
        path(
            ORACLES["mime"](
                quadratics(A, b, start, SIZES, rounds=8, steps=K), rounds=8, lr=ETA, beta=beta
            )
        ),
        expected,
        1e-13,
    )


# -------------------------------------------------------------------------------------------- Ditto


def test_ditto_trains_its_global_model_as_fedavg_and_leaves_absent_clients_alone():
    problem = softmax()
    result = ORACLES["ditto"](problem, rounds=5, lam=0.5)
    np.testing.assert_array_equal(path(result), path(ORACLES["fedavg"](problem, rounds=5)))
    v = np.concatenate([np.tile(problem.start, (1, 5, 1)), path(result, "memory")])
    moved = np.abs(np.diff(v, axis=0)).max(-1) > 0
    assert [np.flatnonzero(row).tolist() for row in moved] == [
        sorted(cohort) for cohort in problem.cohorts
    ]


def test_t13_ditto_interpolates_between_the_mean_and_the_own_estimate():
    (_, b, start), lam = (
        instance(),
        0.7,
    )  # f_i = |v - b_i|^2 / 2: the global model goes to the mean of the b_i by examples
    problem = quadratics(np.stack([EYE] * 4), b, start, SIZES, rounds=200, steps=K)
    result = ORACLES["ditto"](problem, rounds=200, lr=ETA, lam=lam)
    close(path(result, "memory")[-1], lam / (1 + lam) * (shares() @ b) + b / (1 + lam))


def test_ditto_solves_its_proximal_problem_around_the_model_it_received():
    (A, b, start), lam, eta = instance(), 0.7, 0.05
    problem = quadratics(A, b, start, SIZES, rounds=3, steps=K)
    result = ORACLES["ditto"](problem, rounds=3, lr=ETA, lam=lam, personal_lr=eta)
    w, v = (
        np.stack([start, *path(result)]),
        np.stack([np.tile(start, (4, 1)), *path(result, "memory")]),
    )
    for t in range(3):
        for i in range(4):
            prox = np.linalg.solve(A[i] + lam * EYE, A[i] @ b[i] + lam * w[t])
            close(
                v[t + 1, i],
                prox + power(EYE - eta * (A[i] + lam * EYE), K) @ (v[t, i] - prox),
                1e-13,
            )


# ----------------------------------------------------------------------------------- error feedback


def test_top_k_of_a_worked_example():
    problem = softmax()  # leaves of 12 and 3
    p = np.array([1, -5, 2, 0, 3, -3, 0.5, 0, 0, 4, 1, 1, 0.1, -0.3, 0.2])
    close(top_k(problem, p, 0.25), [0, -5, 0, 0, 3, 0, 0, 0, 0, 4, 0, 0, 0, -0.3, 0], 0)
    close(top_k(problem, p, 1e-9), [0, -5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -0.3, 0], 0)


def test_error_feedback_that_sends_everything_is_fedavg():
    problem = softmax()
    result = ORACLES["error_feedback"](problem, rounds=5, fraction=1.0)
    close(path(result), path(ORACLES["fedavg"](problem, rounds=5)), 1e-14)
    close(path(result, "residual"), 0, 0)


def test_t10_what_was_sent_and_what_remains_is_what_was_wanted():
    problem = softmax(rounds=7)
    result = ORACLES["error_feedback"](problem, rounds=7, fraction=0.25)
    x, wanted = np.stack([problem.start, *path(result)]), np.zeros((5, 15))
    sent, residual = path(result, "sent"), path(result, "residual")
    for t, cohort in enumerate(problem.cohorts):
        for i in cohort:
            y = x[t]
            for rows in problem.batches[t][i]:
                y = y - 0.1 * problem.gradient(y, i, rows)
            wanted[i] += x[t] - y
        close(sent[: t + 1].sum(0) + residual[t], wanted, 1e-14)
        close(
            x[t] - x[t + 1],
            problem.sizes[cohort] @ sent[t, cohort] / problem.sizes[cohort].sum(),
            1e-14,
        )
    assert np.count_nonzero(residual[-1]) > 15


def test_the_choice_of_the_largest_is_never_close():
    """If not, float32 and float64 could choose different entries, and the test would be void."""
    problem = softmax()
    result = ORACLES["error_feedback"](problem, rounds=5, fraction=0.25)
    for sent, residual, cohort in zip(
        result.state["sent"], result.state["residual"], problem.cohorts, strict=True
    ):
        for name in problem.shapes:
            for i in cohort:
                kept, left = np.abs(sent[name][i]), np.abs(residual[name][i])
                assert kept[kept > 0].min() > left.max() * (1 + 1e-3)
