"""The numpy oracles against theory, in float64: problem, averaging and server optimizers."""

import numpy as np
import pytest
from oracles import ORACLES, full, quadratics, softmax
from oracles.problem import cyclic, local_batches, unpack
from oracles.theory import ETA, EYE, SIZES, K, close, instance, optimum, path, power, shares


def linear(rounds, slope):
    """Losses ``slope . x``: every client moves by the same vector in every round."""
    problem = softmax((4, 4, 4), rounds=rounds, cohort=None, batch_size=2)
    return problem._replace(gradient=lambda params, client, rows: slope)


# ------------------------------------------------------------------------------- the problem itself


def softmax_loss(leaves, x, y):
    z = x @ leaves["w"] + leaves["b"]
    return np.mean(
        [np.log(np.exp(row).sum()) - row[label] for row, label in zip(z, y, strict=True)]
    )


def quadratic_loss(leaves, x, y):
    return np.mean(
        [(leaves["x"] - b) @ A @ (leaves["x"] - b) / 2 for A, b in zip(x, y, strict=True)]
    )


@pytest.mark.parametrize("client", [0, 1, 3])
@pytest.mark.parametrize(
    ("problem", "loss"),
    [(softmax(), softmax_loss), (quadratics(*instance(), SIZES, rounds=1), quadratic_loss)],
)
def test_gradient_is_the_slope_of_the_loss(problem, loss, client):
    rows, h = np.array([0, 1]), 1e-6

    def value(vector):
        return loss(
            unpack(problem.shapes, vector), problem.x[client][rows], problem.y[client][rows]
        )

    numeric = [
        (value(problem.start + h * e) - value(problem.start - h * e)) / (2 * h)
        for e in np.eye(problem.start.size)
    ]
    close(problem.gradient(problem.start, client, rows), numeric, 1e-8)


def test_batches_cover_every_epoch_in_order_and_the_last_one_is_partial():
    assert [batch.tolist() for batch in local_batches(7, 3, epochs=2)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ] * 2
    assert [batch.tolist() for batch in local_batches(3, 2, steps=3)] == [[0, 1], [2], [0, 1]]
    assert [batch.tolist() for batch in local_batches(3)] == [[0, 1, 2]]


def test_the_usual_problem_is_ragged_and_everybody_is_sometimes_absent():
    problem = softmax()
    assert (
        problem.cohorts
        == [[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1], [2, 3, 4]]
        == cyclic(5, 3, 5)
    )
    assert [len(batches) for batches in problem.batches[0]] == [4, 2, 6, 4, 6]
    assert problem.sizes.tolist() == [7, 3, 12, 5, 9]


@pytest.mark.parametrize("name", ORACLES)
def test_an_absent_client_has_no_influence(name):
    problem = softmax(rounds=3)._replace(cohorts=[[0, 1, 2], [3, 0, 1], [2, 3, 1]])
    poisoned = problem._replace(
        gradient=lambda params, i, rows: (
            params * np.nan if i == 4 else problem.gradient(params, i, rows)
        )
    )
    clean, dirty = ORACLES[name](problem, rounds=3), ORACLES[name](poisoned, rounds=3)
    np.testing.assert_array_equal(path(clean), path(dirty))
    for key in clean.state:
        np.testing.assert_array_equal(path(clean, key), path(dirty, key))


# -------------------------------------------------------------------------------- FedAvg and FedSGD


def test_t1_fedavg_goes_to_its_biased_fixed_point_and_at_the_predicted_rate():
    A, b, start = instance()
    p, M = shares(), np.stack([power(EYE - ETA * a, K) for a in A])
    biased = np.linalg.solve(
        np.einsum("i,ijk->jk", p, EYE - M), np.einsum("i,ijk,ik->j", p, EYE - M, b)
    )
    xs = path(
        ORACLES["fedavg"](quadratics(A, b, start, SIZES, rounds=150, steps=K), rounds=150, lr=ETA)
    )
    contraction = np.einsum("i,ijk->jk", p, M)
    close(xs, [biased + power(contraction, t + 1) @ (start - biased) for t in range(150)])
    close(xs[-1], biased)
    assert np.linalg.norm(biased - optimum(A, b, p)) > 0.1


def test_t2_fedavg_favours_clients_that_take_more_steps():
    _, b, start = instance()
    problem = quadratics(np.stack([EYE] * 4), b, start, SIZES, rounds=200, batch_size=2)
    assert [len(batches) for batches in problem.batches[0]] == [1, 3, 2, 3]
    weight = shares() * (1 - (1 - ETA) ** np.array([1, 3, 2, 3]))
    close(path(ORACLES["fedavg"](problem, rounds=200, lr=ETA))[-1], weight @ b / weight.sum())


def test_fedavg_with_identical_clients_is_sgd_on_one_machine():
    problem = softmax((6, 6, 6), rounds=4, cohort=2, batch_size=4)
    same = problem._replace(gradient=lambda params, i, rows: problem.gradient(params, 0, rows))
    x, expected = problem.start, []
    for t in range(4):
        for rows in problem.batches[t][0]:
            x = x - ETA * problem.gradient(x, 0, rows)
        expected.append(x)
    close(path(ORACLES["fedavg"](same, rounds=4, lr=ETA)), expected, 1e-14)


def test_t7_fedsgd_is_gradient_descent_on_the_pooled_data_and_fedavg_with_one_full_step():
    problem = softmax(rounds=4, cohort=None, epochs=1)
    pooled = softmax((36,), rounds=4, cohort=None, epochs=1)
    pooled.x[0][:], pooled.y[0][:] = np.concatenate(problem.x), np.concatenate(problem.y)
    x, expected = problem.start, []
    for _ in range(4):
        x = x - 0.3 * full(pooled, x, 0)
        expected.append(x)
    close(path(ORACLES["fedsgd"](problem, rounds=4, server_lr=0.3)), expected, 1e-14)
    close(
        path(ORACLES["fedsgd"](softmax(rounds=4, cohort=None), rounds=4, server_lr=0.3)),
        expected,
        1e-14,
    )  # whatever the batches
    close(path(ORACLES["fedavg"](problem, rounds=4, lr=0.3)), expected, 1e-14)


# ------------------------------------------------------------------------------------------ FedProx


def test_t4_fedprox_without_its_term_is_fedavg_to_the_bit():
    problem = softmax()
    np.testing.assert_array_equal(
        path(ORACLES["fedprox"](problem, rounds=5, mu=0.0)),
        path(ORACLES["fedavg"](problem, rounds=5)),
    )


def test_t4_fedprox_inexact_and_exact():
    (A, b, start), mu, p = instance(), 1.5, shares()
    prox = np.stack(
        [np.linalg.solve(a + mu * EYE, a @ b_i + mu * start) for a, b_i in zip(A, b, strict=True)]
    )
    y = [
        prox_i + power(EYE - ETA * (a + mu * EYE), K) @ (start - prox_i)
        for a, prox_i in zip(A, prox, strict=True)
    ]
    one = ORACLES["fedprox"](
        quadratics(A, b, start, SIZES, rounds=1, steps=K), rounds=1, lr=ETA, mu=mu
    )
    close(path(one)[0], p @ np.stack(y))
    P = np.stack([np.linalg.solve(a + mu * EYE, a) for a in A])  # (A_i + mu)^-1 A_i
    fixed = np.linalg.solve(np.einsum("i,ijk->jk", p, P), np.einsum("i,ijk,ik->j", p, P, b))
    many = ORACLES["fedprox"](
        quadratics(A, b, start, SIZES, rounds=80, steps=150), rounds=80, lr=ETA, mu=mu
    )
    close(path(many)[-1], fixed)


# -------------------------------------------------------------------------------- server optimizers


def test_t7_momentum_under_a_constant_pseudo_gradient():
    problem = linear(6, slope := np.linspace(-1, 2, 15))
    D, t, beta = 2 * ETA * slope, np.arange(1, 7)[:, None], 0.8  # two steps a round
    result = ORACLES["fedavgm"](problem, rounds=6, lr=ETA, server_lr=0.5, momentum=beta)
    v = D * (1 - beta**t) / (1 - beta)
    close(path(result, "v"), v)
    close(path(result), problem.start - 0.5 * np.cumsum(v, 0))
    ragged = softmax()
    close(
        path(ORACLES["fedavgm"](ragged, rounds=5, momentum=0.0)),
        path(ORACLES["fedavg"](ragged, rounds=5)),
        1e-14,
    )


B1, B2, TAU = 0.7, 0.95, 1e-2


@pytest.mark.parametrize(
    ("name", "settings", "b1", "second_moment"),
    [
        ("fedadam", {"b1": B1, "b2": B2}, B1, lambda D, t: B2**t * TAU**2 + (1 - B2**t) * D**2),
        (
            "fedyogi",
            {"b1": B1, "b2": B2},
            B1,
            lambda D, t: TAU**2 + t * (1 - B2) * D**2,
        ),  # v climbs to D^2 in 20 rounds, 6 are run
        ("fedadagrad", {}, 0.0, lambda D, t: TAU**2 + t * D**2),
        ("fedadagrad", {"b1": B1}, B1, lambda D, t: TAU**2 + t * D**2),
    ],
)
def test_t7_adaptive_servers_under_a_constant_pseudo_gradient(name, settings, b1, second_moment):
    problem = linear(6, slope := np.linspace(1, 3, 15) * (-1) ** np.arange(15))
    D, t = -2 * ETA * slope, np.arange(1, 7)[:, None]  # the paper's Delta = y - x
    result = ORACLES[name](problem, rounds=6, lr=ETA, server_lr=0.3, tau=TAU, **settings)
    m, v = (1 - b1**t) * D, second_moment(D, t)
    close(path(result, "m"), m)
    close(path(result, "v"), v)
    close(path(result), problem.start + 0.3 * np.cumsum(m / (np.sqrt(v) + TAU), 0))


def test_yogi_comes_down_by_the_same_steps_as_it_goes_up():
    problem = linear(1, slope := np.full(15, 0.01))
    v = path(ORACLES["fedyogi"](problem, rounds=1, lr=ETA, b2=0.9, tau=1.0), "v")[
        0
    ]  # v_{-1} = 1 lies above D^2 = 4e-6
    close(v, 1 - 0.1 * (2 * ETA * slope) ** 2, 1e-15)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedadagrad"])
def test_weighting_of_the_adaptive_servers(name):
    problem = softmax(rounds=1, epochs=1)
    gradients = np.stack([full(problem, problem.start, i) for i in (0, 1, 2)])
    uniform = ORACLES[name](problem, rounds=1, lr=ETA, b1=0.5, weighting="uniform")
    examples = ORACLES[name](problem, rounds=1, lr=ETA, b1=0.5)
    close(path(uniform, "m")[0], -0.5 * ETA * gradients.mean(0), 1e-14)
    close(path(examples, "m")[0], -0.5 * ETA * np.array([7, 3, 12]) @ gradients / 22, 1e-14)


def test_the_sign_in_yogi_is_never_close():
    """If not, float32 and float64 could have different signs, and the test would be void."""
    problem = softmax()
    result = ORACLES["fedyogi"](problem, rounds=5, b1=0.0)  # then m is Delta itself
    before = np.stack([np.full(15, 1e-6), *path(result, "v")[:-1]])
    assert np.abs(before / path(result, "m") ** 2 - 1).min() > 1e-3
