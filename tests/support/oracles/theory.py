"""What the tests of the oracles share: random quadratics, their optimum, and comparisons in
float64."""

import numpy as np

ETA, K = 0.1, 5
SIZES = (2, 6, 3, 5)
EYE = np.eye(3)


def instance(seed=3, clients=4, equal=False):
    """Symmetric A_i with eigenvalues in [0.5, 3], far apart b_i, a start."""
    rng = np.random.default_rng(seed)
    turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(clients)]
    A = np.stack([Q @ np.diag(rng.uniform(0.5, 3, 3)) @ Q.T for Q in turns])
    return (
        np.repeat(A[:1], clients, 0) if equal else A,
        3 * rng.normal(size=(clients, 3)),
        rng.normal(size=3),
    )


def optimum(A, b, p):
    return np.linalg.solve(np.einsum("i,ijk->jk", p, A), np.einsum("i,ijk,ik->j", p, A, b))


def shares(sizes=SIZES):
    return np.array(sizes) / sum(sizes)


def power(matrix, k):
    return np.linalg.matrix_power(matrix, k)


def flat(leaves):
    """The vector (or table of vectors) that was unpacked: the last leaf of both kinds of problem
    has one axis of its own."""
    lead = list(leaves.values())[-1].ndim - 1
    return np.concatenate([leaf.reshape(*leaf.shape[:lead], -1) for leaf in leaves.values()], -1)


def path(result, name=None):
    return np.stack(
        [flat(leaves) for leaves in (result.params if name is None else result.state[name])]
    )


def close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
