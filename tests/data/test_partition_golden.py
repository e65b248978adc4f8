"""The partitions of flwr-datasets 0.6.1, index for index: its own results on the first 6,000 MNIST
labels."""

import hashlib
import json

import numpy as np
import pytest
from shared_data import shared

from fedjax_sim.core.errors import FedError
from fedjax_sim.data.partition import REGISTRY

GOLDEN = "golden_flwr_partitions.json"
ALPHAS = (0.1, 0.5, 1.0, 100.0)
BALANCE = {"False": "never", "True": "above"}
LOGNORMAL = np.random.default_rng(2024).lognormal(0, 2, 200).reshape(10, 20)


def case(partition, clients=None, **options):
    return partition, clients, {"seed": 42, **options}


def inorder(partition, clients=None, **options):
    return case(partition, clients, shuffle=False, **options)


CASES = {
    "iid10": inorder("iid", 10),
    "iid7": inorder("iid", 7),
    **{
        f"dir10_a{alpha}_bal{said}_seed42_min0": case(
            "dirichlet", 10, alpha=alpha, balance=balance, min_size=0
        )
        for alpha in ALPHAS
        for said, balance in BALANCE.items()
    },
    "dir10_a0.5_min10_noshuffle": inorder("dirichlet", 10, alpha=0.5, min_size=10, seed=7),
    "dir100_a0.1_min10": case("dirichlet", 100, alpha=0.1, min_size=10, tries=11),
    "path20_2_random": case("pathological", 20, mode="random"),
    "path20_2_deterministic": case("pathological", 20, mode="deterministic"),
    "path20_2_first-deterministic": case("pathological", 20, mode="first-deterministic"),
    "shard10_2": case("shards", 10),
    "shard10_2_size250": case("shards", 10, shard_size=250),
    "shard9_size100": case("shards", 9, per_client=None, shard_size=100),
    "shard10_size99_keep": case("shards", 10, per_client=None, shard_size=99, keep_incomplete=True),
    "inner600x10_a0.5": case("inner_dirichlet", sizes=(600,) * 10),
    "linear10": inorder("growing", 10, growth="linear"),
    "square10": inorder("growing", 10, growth="square"),
    "exp5": inorder("growing", 5, growth="exponential"),
    "size": inorder("sized", sizes=(1000, 2000, 500)),
    "natural": case("natural"),
    "group7_allow-smaller": case("grouped", group_size=7),
    "group7_allow-bigger": case("grouped", group_size=7, rest="bigger"),
    "group7_drop-reminder": case("grouped", group_size=7, rest="drop"),
    "cont10_s0.7": case("continuous", 10, strictness=0.7),
    "distribution100_lognormal_pre2": case("distribution", 100, shares=LOGNORMAL, least=2),
}


def golden():
    return json.loads(shared(GOLDEN).read_text())["cases"]


def parts_of(name):
    partition, clients, options = CASES[name]
    with np.load(shared("mnist.npz")) as arrays:
        columns = {
            "labels": arrays["y_train"][:6000],
            "ids": arrays["writer_train"][:6000],
            "values": np.arange(6000) * 0.37 % 11,
        }
    column = columns[REGISTRY[partition].metadata["column"]]
    return REGISTRY[partition](column, clients, **options)


def test_every_golden_case_is_here():
    assert set(CASES) == set(golden())


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    expected = golden()[name]
    if "error" in expected:
        assert "max number of attempts" in expected["error"]
        with pytest.raises(FedError, match=r"no Dirichlet.*11 draws for 100 clients"):
            parts_of(name)
        return
    parts = parts_of(name)
    assert [len(part) for part in parts] == expected["sizes"]
    assert [int(part[0]) for part in parts[:5]] == expected["first"]
    assert (
        hashlib.sha256(b"|".join(part.astype("<i4").tobytes() for part in parts)).hexdigest()
        == expected["sha256"]
    )
