"""What is drawn has the law that the docstrings and papers give; and NIID-Bench's partitions, row
for row against its own loops."""

import numpy as np
import pytest

from fedjax_sim.data.partition import (
    continuous,
    dirichlet,
    distribution,
    hsu_dirichlet,
    iid,
    inner_dirichlet,
    pathological,
    power_law,
    quantity_dirichlet,
    shards,
    similarity,
)


def table(labels, parts):
    """``[N, C]``: how many examples of each class each client holds."""
    return np.array([np.bincount(labels[part], minlength=labels.max() + 1) for part in parts])


# --------------------------------------------------------------------------- Dirichlet over clients


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_shares_of_the_clients_have_the_moments_of_a_dirichlet(alpha):
    """Every class is one draw: mean 1 / N, variance (N - 1) / (N^2 (N alpha + 1)), covariance -1 /
    (N^2 (N alpha + 1))."""
    clients = 5
    draws = 3000
    each = 400
    labels = np.repeat(np.arange(draws), each)
    shares = table(labels, dirichlet(labels, clients, alpha=alpha, seed=0)).T / each
    unit = 1 / (clients**2 * (clients * alpha + 1))
    error = np.sqrt((clients - 1) * unit / draws)
    np.testing.assert_allclose(shares.mean(axis=0), 1 / clients, atol=4 * error + 1 / each)
    covariance = np.cov(shares.T)
    np.testing.assert_allclose(np.diag(covariance), (clients - 1) * unit, rtol=0.12)
    np.testing.assert_allclose(np.diag(covariance).mean(), (clients - 1) * unit, rtol=0.04)
    np.testing.assert_allclose(covariance[~np.eye(clients, dtype=bool)], -unit, rtol=0.35)


def test_shares_follow_one_alpha_per_client():
    alphas = np.array([0.5, 1.0, 3.5])
    labels = np.repeat(np.arange(3000), 200)
    shares = table(labels, dirichlet(labels, 3, alpha=alphas, seed=0)).T / 200
    np.testing.assert_allclose(shares.mean(axis=0), alphas / 5, atol=0.02)
    np.testing.assert_allclose(shares.var(axis=0), alphas * (5 - alphas) / (25 * 6), rtol=0.08)


def test_sizes_of_the_quantity_partition_have_the_moments_of_a_dirichlet():
    """As above; the least that every client gets is not drawn."""
    clients = 4
    n = 4000
    least = 100
    draws = 3000
    parts = [
        quantity_dirichlet(np.zeros(n), clients, alpha=2.0, least=least, shuffle=False, seed=seed)
        for seed in range(draws)
    ]
    shares = (np.array([[len(part) for part in each] for each in parts]) - least) / (
        n - clients * least
    )
    np.testing.assert_allclose(shares.mean(axis=0), 1 / clients, atol=0.01)
    np.testing.assert_allclose(
        shares.var(axis=0).mean(), (clients - 1) / (clients**2 * (2 * clients + 1)), rtol=0.05
    )


@pytest.mark.parametrize("balance", ["above", "at"])
def test_who_holds_a_fair_part_gets_no_further_class(balance):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(20), 50))
    held = table(labels, dirichlet(labels, 10, alpha=0.3, balance=balance, seed=2))
    before = np.cumsum(held, axis=1) - held
    full = before > 100 if balance == "above" else before >= 100
    assert full[:-1].any()
    assert not held[:-1][full[:-1]].any()
    assert held[-1][full[-1]].max(initial=0) <= 1, "a row lost in rounding"


# --------------------------------------------------------------------------- Dirichlet over classes


def assert_beta_binomial(held, each, alphas):
    """Of ``each`` draws, class k has the share alpha_k / A on average, with the variance of a
    beta-binomial."""
    mean = alphas / alphas.sum()
    total = alphas.sum()
    shares = held / each
    variance = mean * (1 - mean) * (1 / each + (1 - 1 / each) / (total + 1))
    assert np.all(np.abs(shares.mean(axis=0) - mean) < 4 * np.sqrt(variance / len(held)))
    np.testing.assert_allclose(shares.var(axis=0), variance, rtol=0.1)


PRIOR = np.array([0.1, 0.2, 0.3, 0.4])
PLENTY = np.random.default_rng(0).permutation(
    np.repeat(np.arange(4), (PRIOR * 200_000).astype(int))
)


@pytest.mark.parametrize("alpha", [0.5, 4.0])
def test_clients_draw_by_shares_around_the_prior(alpha):
    """Hsu et al.: Dirichlet(alpha * prior). More than one block of draws, and no class is used
    up."""
    held = table(PLENTY, hsu_dirichlet(PLENTY, 7_000, alpha=alpha, size=10, seed=0))
    assert np.all(held.sum(axis=1) == 10)
    assert_beta_binomial(held, 10, alpha * PRIOR)


def test_clients_draw_by_shares_of_the_classes():
    alphas = np.array([0.5, 0.2, 0.2, 0.1])
    held = table(PLENTY, inner_dirichlet(PLENTY, alpha=alphas, sizes=(8,) * 4_000, seed=0))
    assert np.all(held.sum(axis=1) == 8)
    assert_beta_binomial(held, 8, alphas)


def in_turns(rng, counts, alpha, clients, each):
    """Hsu et al. by the letter: one draw after the other. What each client holds of each class."""
    left = np.array(counts)
    held = np.zeros((clients, len(counts)), int)
    shares = rng.dirichlet(alpha * left / left.sum(), size=clients)
    for _ in range(each):
        for client in rng.permutation(clients):
            kind = rng.choice(len(left), p=shares[client])
            held[client, kind] += 1
            left[kind] -= 1
            if not left[kind] and left.any():
                shares[:, kind] = 0
                shares /= shares.sum(axis=1, keepdims=True)
    return held


def test_classes_that_are_used_up_leave_the_law_of_the_sequential_draw():
    """Few examples, so that almost every draw is shaped by what is left: first and second moments
    of all that is held."""
    counts = (6, 3, 2)
    draws = 4000
    labels = np.repeat([0, 1, 2], counts)
    mine = np.array(
        [
            table(labels, hsu_dirichlet(labels, 3, alpha=3.0, seed=seed)).ravel()
            for seed in range(draws)
        ],
        float,
    )
    theirs = np.array(
        [
            in_turns(np.random.default_rng([7, seed]), counts, 3.0, 3, 3).ravel()
            for seed in range(draws)
        ],
        float,
    )
    for a, b in (
        (mine, theirs),
        (mine[:, :, None] * mine[:, None], theirs[:, :, None] * theirs[:, None]),
    ):
        error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / draws)
        assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) <= 4.5 * error)


@pytest.mark.parametrize("make", [inner_dirichlet, hsu_dirichlet])
def test_a_client_that_loses_its_only_class_draws_among_the_others(make):
    """At a tiny alpha every client has one class; the partition ends and has no row twice."""
    labels = np.repeat(np.arange(5), 40)
    for seed in range(20):
        parts = make(labels, 10, alpha=1e-6, seed=seed)
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(200))
        assert np.median((table(labels, parts) > 0).sum(axis=1)) <= 3


# --------------------------------------------------------------------------------- other label skew


def test_two_shards_are_at_most_four_labels():
    """McMahan et al.: 60,000 examples, 100 clients, 600 each; a shard straddles one boundary at
    most."""
    labels = np.random.default_rng(0).integers(0, 10, 60_000)
    held = table(labels, shards(labels, 100, seed=0))
    assert np.all(held.sum(axis=1) == 600)
    kinds = (held > 0).sum(axis=1)
    assert kinds.max() <= 4
    assert np.median(kinds) == 2


@pytest.mark.parametrize("mode", ["random", "deterministic", "first-deterministic"])
def test_clients_hold_exactly_so_many_classes(mode):
    labels = np.random.default_rng(0).integers(0, 10, 5000)
    held = table(labels, pathological(labels, 40, classes_per_client=3, mode=mode, seed=0))
    assert np.all((held > 0).sum(axis=1) == 3)
    for of_one in held.T:
        assert np.ptp(of_one[of_one > 0]) <= 1
    first = np.arange(40) % 10
    assert mode == "random" or np.all(held[np.arange(40), first] > 0)
    others = (held > 0).sum(axis=0)
    assert others.sum() == 120
    assert (np.ptp(others) == 0) == (mode == "deterministic")


def test_a_power_law_has_lognormal_shares():
    labels = np.repeat([0, 1], 1_000_000)
    held = table(labels, power_law(labels, 2000, classes_per_client=1, least=5, sigma=0.5, seed=0))
    assert np.array_equal((held > 0).sum(axis=1), np.ones(2000))
    logs = np.log(held.max(axis=1) - 5 + 0.5)
    assert logs.std() == pytest.approx(0.5, rel=0.06)
    assert np.mean((logs - logs.mean()) ** 3) == pytest.approx(0, abs=0.03)


def test_a_power_law_on_mnist_is_that_of_fedprox():
    """1,000 clients with two neighbouring digits each, 5 or more of each."""
    labels = np.random.default_rng(0).integers(0, 10, 60_000)
    held = table(labels, power_law(labels, 1000, seed=0))
    digits = np.sort((np.arange(1000)[:, None] + [0, 1]) % 10, axis=1)
    np.testing.assert_array_equal(np.argwhere(held > 0)[:, 1].reshape(1000, 2), digits)
    assert held[held > 0].min() == 5
    assert held.sum() == 60_000


def test_numbers_that_are_given_are_kept():
    labels = np.repeat([0, 1], 20)
    held = table(
        labels, distribution(labels, 4, shares=((1, 2, 3, 4), (5, 6, 7, 2)), rescale=False)
    )
    np.testing.assert_array_equal(held, [[1, 5], [2, 6], [3, 7], [4, 2]])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_every_client_is_iid_and_the_rest_is_sorted(share):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 1000))
    held = table(labels, similarity(labels, 10, share=share, seed=0))
    assert np.ptp(held.sum(axis=1)) <= 2
    most = held.max(axis=1) / held.sum(axis=1)
    np.testing.assert_allclose(most, 1 - share + 0.1 * share, atol=0.05)


@pytest.mark.parametrize("strictness", [0.0, 0.3, 0.7, 1.0])
def test_strictness_is_a_correlation(strictness):
    """Of normal values z, the blend s z + (1 - s) noise has the correlation s / sqrt(s^2 + (1 -
    s)^2), and of ranks 6 / pi asin(r / 2)."""
    n = 20_000
    values = np.random.default_rng(0).normal(3, 2, n)
    ranks = np.empty(n)
    ranks[np.argsort(values)] = np.arange(n)
    found = np.corrcoef(
        ranks[np.concatenate(continuous(values, n, strictness=strictness, seed=1))], np.arange(n)
    )[0, 1]
    r = strictness / np.hypot(strictness, 1 - strictness)
    assert found == pytest.approx(6 / np.pi * np.arcsin(r / 2), abs=0.03)


# --------------------------------------------------------------------------------------- NIID-Bench


def labeldir(rng, y, parties, beta, least):
    """``noniid-labeldir``."""
    smallest = 0
    while smallest < least:
        batches = [[] for _ in range(parties)]
        for k in np.unique(y):
            rows = np.where(y == k)[0]
            rng.shuffle(rows)
            p = rng.dirichlet(np.repeat(beta, parties))
            p = np.array(
                [
                    share * (len(batch) < len(y) / parties)
                    for share, batch in zip(p, batches, strict=True)
                ]
            )
            # The original divides by p.sum(); its last bit differs, which can move a cut by one.
            p = p / np.cumsum(p)[-1]
            cuts = (np.cumsum(p) * len(rows)).astype(int)[:-1]
            batches = [
                batch + more.tolist()
                for batch, more in zip(batches, np.split(rows, cuts), strict=True)
            ]
            smallest = min(map(len, batches))
    for batch in batches:
        rng.shuffle(batch)
    return batches


def diff_quantity(rng, y, parties, beta, least):
    """``iid-diff-quantity``."""
    rows = rng.permutation(len(y))
    smallest = 0
    while smallest < least:
        p = rng.dirichlet(np.repeat(beta, parties))
        smallest = np.min(p / p.sum() * len(y))
    return np.split(rows, (np.cumsum(p) * len(y)).astype(int)[:-1])


def label_quantity(rng, y, parties, num):
    """``noniid-#label``."""
    classes = len(np.unique(y))
    times = [0] * classes
    contain = []
    for i in range(parties):
        current = [i % classes]
        while len(current) < num:
            kind = int(rng.integers(classes))
            if kind not in current:
                current.append(kind)
        for kind in current:
            times[kind] += 1
        contain.append(current)
    batches = [np.zeros(0, int) for _ in range(parties)]
    for k in range(classes):
        rows = np.where(y == k)[0]
        rng.shuffle(rows)
        pieces = iter(np.array_split(rows, times[k]))
        batches = [
            np.append(b, next(pieces)) if k in contain[j] else b for j, b in enumerate(batches)
        ]
    return batches


Y = np.random.default_rng(3).integers(0, 10, 3000)
NIID = {
    "noniid-labeldir": (
        lambda rng: labeldir(rng, Y, 10, 0.1, 10),
        dirichlet,
        {"balance": "at", "shuffle_classes": True, "min_size": 10},
    ),
    "iid-diff-quantity": (
        lambda rng: diff_quantity(rng, Y, 10, 0.5, 10),
        quantity_dirichlet,
        {"least": 0, "min_size": 10},
    ),
    "noniid-#label3": (
        lambda rng: label_quantity(rng, Y, 10, 3),
        pathological,
        {"classes_per_client": 3, "shuffle_classes": True, "shuffle": False},
    ),
    "homo": (lambda rng: np.array_split(rng.permutation(len(Y)), 10), iid, {}),
}


@pytest.mark.parametrize("name", NIID)
@pytest.mark.parametrize("seed", range(5))
def test_niid_bench(name, seed):
    theirs, mine, options = NIID[name]
    for a, b in zip(
        mine(Y, 10, seed=seed, **options), theirs(np.random.default_rng(seed)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
