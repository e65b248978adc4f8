"""Aggregators against numpy, on uploads of which some are absent; chains as an onion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_sim.aggregators import (
    REGISTRY,
    chain,
    clip,
    mean,
    median,
    scaled_sum,
    stage,
    unweighted_mean,
)
from fedjax_sim.core import tree
from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Upload, Variables

C = 6
RNG = np.random.default_rng(0)
DELTA = {
    "w": RNG.normal(size=(C, 3, 2)).astype(np.float32),
    "b": RNG.normal(size=(C, 2)).astype(np.float32),
}
STATE = {"seen": RNG.normal(size=(C, 2)).astype(np.float32)}
EXTRA = {"c": RNG.normal(size=(C, 4)).astype(np.float32)}
SIZES = np.array([3, 1, 7, 2, 5, 4], np.float32)
START = Variables({"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}, {"seen": jnp.zeros(2)})
COHORTS = pytest.mark.parametrize("rows", [range(C), [0, 2, 3], [1, 4], [5], []], ids=str)


def aggregate(aggregator, rows, state=None, delta=DELTA):
    """What an engine does with uploads: lift each, then sum or stack those that are present."""
    key, state = jax.random.key(0), aggregator.init(START) if state is None else state
    present = np.isin(np.arange(C), rows)
    uploads = Upload(delta, STATE, EXTRA, SIZES, np.ones(C, np.float32))
    lifted, stats = jax.vmap(
        lambda i, upload: aggregator.lift(jax.random.fold_in(key, i), state, upload)
    )(np.arange(C), uploads)
    lifted, stats = (
        tree.where(present, value, tree.zeros_like(jax.tree.map(jnp.asarray, value)))
        for value in (lifted, stats)
    )
    reduced = tree.total(lifted) if aggregator.reduce == "sum" else lifted
    return jax.device_get(aggregator.finalize(key, state, reduced, tree.total(stats)))


def average(values, weights, divisor=None):
    divisor = weights.sum() if divisor is None else divisor
    return jax.tree.map(
        lambda leaf: np.einsum("i,i...->...", weights, leaf) / max(divisor, 1e-9), values
    )


def same(have, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), have, want)


@COHORTS
@pytest.mark.parametrize(
    ("aggregator", "weights", "divisor"),
    [
        (mean(), SIZES, None),
        (unweighted_mean(), np.ones(C), None),
        (scaled_sum(4.0), np.ones(C), 4.0),
    ],
)
def test_weighted_means(aggregator, weights, divisor, rows):
    present = np.isin(np.arange(C), rows)
    upload, _, metrics = aggregate(aggregator, rows)
    same(upload.delta, average(DELTA, present * weights, divisor))
    same(upload.state, average(STATE, present * weights, divisor))
    same(upload.extra, average(EXTRA, present.astype(float)))  # by head, whatever the weights
    assert (upload.weight, upload.count) == (SIZES[present].sum(), present.sum())
    assert metrics == {}


@COHORTS
def test_the_median_of_each_coordinate_over_present_clients(rows):
    upload, _, _ = aggregate(median(), rows)
    assert all(np.isfinite(leaf).all() or not len(rows) for leaf in jax.tree.leaves(upload))
    if len(rows):
        middle = jax.tree.map(lambda leaf: np.median(leaf[list(rows)], axis=0), (DELTA, STATE))
        same((upload.delta, upload.state), middle)
        same(upload.extra, average(EXTRA, np.isin(np.arange(C), rows).astype(float)))
        assert (upload.weight, upload.count) == (SIZES[list(rows)].sum(), len(rows))


@COHORTS
def test_clip_bounds_the_norm_over_all_leaves_and_counts_the_clients_it_changed(rows):
    norms = np.sqrt((DELTA["w"] ** 2).sum((1, 2)) + (DELTA["b"] ** 2).sum(1))
    bound = float(np.median(norms))
    upload, _, metrics = aggregate(chain(clip(bound), unweighted_mean()), rows)
    present = np.isin(np.arange(C), rows).astype(float)
    factor = np.minimum(1, bound / norms)
    shrunk = jax.tree.map(lambda leaf: leaf * factor.reshape(-1, *[1] * (leaf.ndim - 1)), DELTA)
    same(upload.delta, average(shrunk, present))
    same(upload.state, average(STATE, present))
    same(metrics["clipped"].total, (present * (norms > bound)).sum())
    assert metrics["clipped"].weight == len(rows)


def test_clip_leaves_zero_alone():
    upload, _, metrics = aggregate(
        chain(clip(0.5), unweighted_mean()), range(C), delta=jax.tree.map(np.zeros_like, DELTA)
    )
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(upload.delta))
    assert metrics["clipped"].value == 0


def test_one_bad_upload_moves_the_median_little_and_the_mean_far():
    bad = jax.tree.map(np.copy, DELTA)
    for leaf in jax.tree.leaves(bad):
        leaf[2] = 1e6
    steady, moved = (
        aggregate(rule, range(C), delta=bad)[0].delta for rule in (median(), unweighted_mean())
    )
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(steady)) < 5
    assert min(np.abs(leaf).min() for leaf in jax.tree.leaves(moved)) > 1e5


@pytest.mark.parametrize("name", REGISTRY)
def test_every_registered_stage_works_alone_or_before_the_mean(name):
    settings = {"max_norm": 1.0} if name == "clip" else {}
    it = REGISTRY[name](**settings)
    upload, state, _ = aggregate(it if it.reduce else chain(it, mean()), [0, 1, 4])
    assert jax.tree.structure(upload.delta) == jax.tree.structure(START.params)
    assert jax.tree.map(jnp.shape, upload.delta) == jax.tree.map(jnp.shape, dict(START.params))
    assert jax.tree.leaves(state) == []


# ------------------------------------------------------------------------------------------- chains


def affine(name, factor, shift, undo=False):
    """``factor x + shift`` on the client; ``undo`` inverts it on the server. Counts its rounds."""

    def lift(key, state, upload):
        return upload._replace(
            delta=jax.tree.map(lambda leaf: factor * leaf + shift, upload.delta)
        ), {name: jnp.float32(state)}

    def finalize(key, state, upload, stats):
        back = jax.tree.map(lambda leaf: (leaf - shift) / factor if undo else leaf, upload.delta)
        return (
            upload._replace(delta=back),
            state + 1,
            {name: stats[name], f"{name}_key": jax.random.key_data(key)},
        )

    return stage(lift, finalize, lambda variables: jnp.float32(len(name)))


def test_lifts_run_left_to_right_and_finalizers_right_to_left():
    plain = average(DELTA, np.full(C, 1 / C), 1)
    upload, _, _ = aggregate(
        chain(affine("a", 2, 0), affine("b", 1, 3), unweighted_mean()), range(C)
    )
    same(upload.delta, jax.tree.map(lambda leaf: 2 * leaf + 3, plain))
    upload, _, _ = aggregate(
        chain(affine("a", 2, 1, undo=True), affine("b", 5, 3, undo=True), unweighted_mean()),
        range(C),
    )
    same(upload.delta, plain)


def test_every_stage_has_its_own_state_stats_and_key():
    both = chain(affine("a", 1, 0), affine("bbb", 1, 0), mean())
    _, state, metrics = aggregate(both, [0, 2, 3])
    assert [float(leaf) for leaf in jax.tree.leaves(state)] == [2, 4]
    assert (metrics["a"], metrics["bbb"]) == (3 * 1, 3 * 3)
    assert metrics["a_key"].tolist() != metrics["bbb_key"].tolist()
    _, state, metrics = aggregate(both, [0, 2, 3], state=state)
    assert [float(leaf) for leaf in jax.tree.leaves(state)] == [3, 5]
    assert (metrics["a"], metrics["bbb"]) == (3 * 2, 3 * 4)


def test_a_chain_is_an_aggregator_and_may_end_another_chain():
    nested, whole = (
        chain(affine("a", 2, 0), chain(clip(0.7), mean())),
        chain(affine("a", 2, 0), clip(0.7), mean()),
    )
    same(aggregate(nested, [0, 1, 4])[0], aggregate(whole, [0, 1, 4])[0])
    assert chain(clip(1.0), median()).reduce == "stack"
    assert chain(clip(1.0), mean()).reduce == "sum"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], r"reducers at places \[\] of 0"),
        ([clip(1.0)], r"reducers at places \[\] of 1"),
        ([mean(), clip(1.0)], r"reducers at places \[0\] of 2"),
        ([mean(), unweighted_mean()], r"reducers at places \[0, 1\] of 2"),
        ([clip(1.0), median(), mean()], r"reducers at places \[1, 2\] of 3"),
    ],
)
def test_a_chain_ends_with_its_one_reducer(stages, message):
    with pytest.raises(FedError, match=message):
        chain(*stages)


@pytest.mark.parametrize("make", [lambda: clip(0.0), lambda: clip(-1.0), lambda: scaled_sum(0.0)])
def test_bounds_and_divisors_must_be_positive(make):
    with pytest.raises(FedError, match="must be positive"):
        make()
