"""Partitions that cannot be made end with one sentence, and none of them hangs."""

import numpy as np
import pytest

from fedjax_sim.core.errors import FedError
from fedjax_sim.data.feature_noise import feature_noise
from fedjax_sim.data.federation import hold_out, split
from fedjax_sim.data.partition import (
    continuous,
    dirichlet,
    distribution,
    generator,
    grouped,
    growing,
    hsu_dirichlet,
    iid,
    inner_dirichlet,
    natural,
    pathological,
    power_law,
    quantity_dirichlet,
    shards,
    similarity,
    sized,
)
from fedjax_sim.data.population import by_client

LABELS = np.random.default_rng(0).integers(0, 10, 1003)
RARE = np.repeat([0, 1], [997, 3])
ONES = np.ones((10, 4))

IMPOSSIBLE = {
    "clients": [
        (
            lambda: iid(LABELS, 2000),
            "2000 clients with 1 or more examples each need 2000 examples: got 1003",
        ),
        (lambda: iid(LABELS, 0), "clients must be a whole number above 0: got 0"),
        (lambda: iid(LABELS, None), "clients must be a whole number above 0: got None"),
        (lambda: iid(LABELS, True), "clients must be a whole number above 0: got True"),
        (lambda: dirichlet(LABELS, -1), "clients must be"),
        (lambda: shards(LABELS, -1), "clients must be"),
        (lambda: inner_dirichlet(LABELS, 2000), "2000 clients"),
        (lambda: hsu_dirichlet(LABELS, 2000), "2000 clients"),
        (lambda: continuous(LABELS, 2000), "2000 clients"),
        (
            lambda: natural(LABELS, 9),
            "10 ids make 10 clients: got 9; set clients to 10, or leave it out",
        ),
        (lambda: grouped(LABELS), "clients must be a whole number above 0: got None"),
        (lambda: grouped(LABELS, 11), "11 clients need as many ids: got 10"),
        (lambda: grouped(LABELS, 3, group_size=2), "10 ids in groups of 2 make 5 clients: got 3"),
        (lambda: sized(LABELS, 3, sizes=(1, 2)), "2 sizes make 2 clients: got 3"),
    ],
    "seed": [
        (lambda: iid(LABELS, 10, seed=-1), "seed must not be negative"),
        (lambda: generator(-1, 2), "seed must not be negative"),
        (lambda: shards(LABELS, 10, seed=0.5), "seed must be a whole number"),
        (lambda: hold_out(LABELS, LABELS, 0.2, seed=-3), "seed must not be negative"),
        (
            lambda: split(by_client(LABELS, LABELS, LABELS), 0.2, seed=-3),
            "seed must not be negative",
        ),
    ],
    "column": [
        (
            lambda: dirichlet(LABELS.reshape(17, 59), 3),
            "labels must be a vector with one entry per example: got .17, 59.",
        ),
        (lambda: natural(np.array([1, None, "a"], object)), "ids must be of one kind that sorts"),
        (lambda: continuous(LABELS.astype(str), 3), "values must be numbers"),
        (
            lambda: continuous([1.0, np.nan, np.inf, 1e30], 2),
            "values must be finite and below 1e18: got 3 that are not",
        ),
        (lambda: continuous(np.ones(10), 2), "values must differ: got a standard deviation of 0"),
    ],
    "dirichlet": [
        (lambda: dirichlet(LABELS, 10, alpha=0.0), "alpha must be positive and finite: got 0.0"),
        (lambda: dirichlet(LABELS, 10, alpha=np.nan), "alpha must be positive and finite: got nan"),
        (lambda: dirichlet(LABELS, 10, alpha=1e308), "alpha must be positive and finite"),
        (
            lambda: dirichlet(LABELS, 10, alpha=[1.0, 1.0]),
            "alpha is one number or one for each client: got .2,.",
        ),
        (
            lambda: dirichlet(LABELS, 10, alpha=[[1.0], [1.0, 2.0]]),
            "alpha must be numbers, in rows of equal length",
        ),
        (lambda: dirichlet(LABELS, 10, min_size=101), "each need 1010 examples"),
        (lambda: dirichlet(LABELS, 10, min_size=-1), "min_size must not be negative"),
        (
            lambda: dirichlet(LABELS, 100, alpha=0.01, min_size=5),
            "5 or more: got 100 draws for 100 clients; raise alpha",
        ),
        (lambda: dirichlet(LABELS, 20, alpha=1e-6), "1 or more: got 100 draws for 20 clients"),
        (lambda: dirichlet(LABELS, 10, tries=0), "tries must be positive"),
        (
            lambda: quantity_dirichlet(LABELS, 100, alpha=0.1, least=0),
            "1 or more: got 100 draws for 100 clients",
        ),
        (lambda: quantity_dirichlet(LABELS, 100, least=11), "11 or more examples each need 1100"),
        (lambda: inner_dirichlet(LABELS, 5, alpha=(1.0, 2.0)), "one for each class"),
        (lambda: hsu_dirichlet(LABELS, 5, alpha=0), "alpha must be positive"),
        (
            lambda: hsu_dirichlet(LABELS, 5, size=300),
            "5 clients with 300 or more examples each need 1500",
        ),
        (lambda: hsu_dirichlet(LABELS, 5, size=0), "size must be positive"),
    ],
    "numbers": [
        (
            lambda: sized(LABELS, sizes=(1000, 10)),
            "2 sizes that add up to 1010 need as many examples: got 1003",
        ),
        (lambda: sized(LABELS, sizes=(10, 0)), "sizes must be whole numbers above 0"),
        (lambda: sized(LABELS, sizes=(0.5, 2)), "sizes must be whole numbers above 0"),
        (lambda: sized(LABELS, sizes=()), "sizes must be whole numbers above 0"),
        (
            lambda: growing(LABELS, 50, growth="linear"),
            "with linear growth over 50 clients the first one gets no example",
        ),
        (lambda: growing(LABELS, 1000, growth="exponential"), "the first one gets no example"),
        (
            lambda: grouped(LABELS, group_size=11, rest="drop"),
            "a group of 11 ids needs as many: got 10",
        ),
        (
            lambda: grouped(LABELS, group_size=3, rest="refuse"),
            "groups of 3 must use up all ids: got 1 of 10 left",
        ),
        (lambda: grouped(LABELS, group_size=0), "group_size must be positive"),
    ],
    "labels": [
        (lambda: shards(LABELS, 10, per_client=0), "per_client must be positive: got 0"),
        (lambda: shards(LABELS, 10, per_client=1.5), "per_client must be a whole number: got 1.5"),
        (lambda: shards(LABELS, 10, per_client=3, shard_size=50), "too few shards"),
        (lambda: shards(LABELS, 10, per_client=None, shard_size=500), "too few shards"),
        (lambda: shards(LABELS, 10, per_client=None), "a number or a size"),
        (lambda: similarity(LABELS, 10, share=1.1), r"share is a share and must lie in \[0, 1\]"),
        (
            lambda: similarity(LABELS, 10, share=0.995),
            "the sorted examples must make 10 shards for 10 clients: got 5 examples",
        ),
        (
            lambda: pathological(RARE, 4, classes_per_client=2),
            "needs an example of it: got 3 examples of class 1 for 4 clients",
        ),
        (
            lambda: pathological(LABELS, 4, classes_per_client=11),
            "a client cannot hold 11 classes: got 10 in the labels",
        ),
        (
            lambda: pathological(LABELS, 4, classes_per_client=0),
            "classes_per_client must be positive",
        ),
        (lambda: power_law(LABELS, 25), "clients must be a multiple of the 10 classes: got 25"),
        (
            lambda: power_law(LABELS, 100),
            "5 examples of each class for each of its 20 holders need 100: got a class of",
        ),
        (lambda: power_law(LABELS, 20, sigma=-1.0), "sigma must not be negative"),
        (
            lambda: power_law(LABELS, 100, least=0),
            "every client needs an example: got none for clients",
        ),
        (
            lambda: distribution(LABELS, 20, shares=ONES[:9]),
            r"shares must be \[10, 4\] numbers from 0 on",
        ),
        (
            lambda: distribution(LABELS, 20, shares=-ONES),
            r"numbers from 0 on.*: got \(10, 4\) from -1.0 on",
        ),
        (
            lambda: distribution(LABELS, 20, shares=((1.0,), (1.0, 2.0))),
            "shares must be numbers, in rows of equal length",
        ),
        (
            lambda: distribution(LABELS, 20, shares=ONES * 0),
            "every class needs a share above 0: got a row of zeros",
        ),
        (
            lambda: distribution(LABELS, 20, shares=ONES * 50, rescale=False),
            "more examples of a class than there are",
        ),
        (
            lambda: distribution(LABELS, 20, shares=ONES * 0, rescale=False),
            "every client needs an example: got none",
        ),
    ],
    "noise": [
        (
            lambda: feature_noise(by_client(LABELS, LABELS, LABELS)),
            "noise needs features that are floating point: got int64",
        ),
        (
            lambda: feature_noise(by_client(LABELS * 0.1, LABELS, LABELS), noise=-1.0),
            "noise must not be negative",
        ),
    ],
}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(*case, id=f"{kind}-{i}")
        for kind, c in IMPOSSIBLE.items()
        for i, case in enumerate(c)
    ],
)
def test_the_impossible_ends_with_one_sentence(make, words):
    with pytest.raises(FedError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)
