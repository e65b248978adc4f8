"""Aggregators as stages of an onion: lifts run left to right on the client, finalizers right to left on the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.random import fold_in

from fedjax_sim.core import tree
from fedjax_sim.core.errors import positive, require
from fedjax_sim.core.types import Aggregator, Array, Key, Mean, Metrics, PyTree, Upload, Variables

Lift = Callable[[Key, PyTree, Upload], tuple[Upload, PyTree]]
Finalize = Callable[[Key, PyTree, Upload, PyTree], tuple[Upload, PyTree, Metrics]]


def stage(
    lift: Lift = lambda key, state, upload: (upload, ()),
    finalize: Finalize = lambda key, state, upload, stats: (upload, state, {}),
    init: Callable[[Variables], PyTree] = lambda variables: (),
    reduce: Literal["sum", "stack"] | None = None,
) -> Aggregator:
    """An aggregator from those of its slots that do something."""
    return Aggregator(init, lift, finalize, reduce)


REDUCERS = "mean, uniform, total or median"


def require_reducer(aggregator: Aggregator) -> None:
    """Requires an aggregator that reduces.

    Raises:
      FedError: for a stage that only makes sense before one.
    """
    require(
        aggregator.reduce is not None,
        "an aggregator must reduce",
        got="stages that do not",
        fix=f"chain them with one of {REDUCERS}",
    )


def chain(*stages: Aggregator) -> Aggregator:
    """The stages as one. Each sees its own state and stats; the last one, and only it, reduces.

    Raises:
      FedError: unless exactly the last stage reduces.
    """
    reducers = [i for i, s in enumerate(stages) if s.reduce]
    require(
        reducers == [len(stages) - 1],
        "a chain of aggregators ends with its one reducer",
        got=f"reducers at places {reducers} of {len(stages)}",
        fix=f"put one of {REDUCERS} last, and nothing like them before it",
    )

    def lift(key: Key, state: PyTree, upload: Upload) -> tuple[Upload, PyTree]:
        stats = []
        for i, s in enumerate(stages):
            upload, stat = s.lift(fold_in(key, i), state[i], upload)
            stats.append(stat)
        return upload, tuple(stats)

    def finalize(
        key: Key, state: PyTree, upload: Upload, stats: PyTree
    ) -> tuple[Upload, PyTree, Metrics]:
        states, metrics = list(state), {}
        for i, s in reversed(list(enumerate(stages))):
            upload, states[i], report = s.finalize(fold_in(key, i), state[i], upload, stats[i])
            metrics |= report
        return upload, tuple(states), metrics

    return Aggregator(
        lambda variables: tuple(s.init(variables) for s in stages),
        lift,
        finalize,
        stages[-1].reduce,
    )


def mean() -> Aggregator:
    """The mean over the cohort, clients weighted by their number of examples (McMahan et al. 2017, Algorithm 1)."""
    return _weighted(lambda upload: upload.weight, lambda upload: upload.weight)


def unweighted_mean() -> Aggregator:
    """The mean over the cohort, all clients alike (Reddi et al. 2021 and Karimireddy et al. 2020 write it so)."""
    return _weighted(lambda upload: upload.count, lambda upload: upload.count)


def scaled_sum(divisor: float = 1.0) -> Aggregator:
    """The sum over the cohort divided by a constant, such as the *expected* cohort (what differential privacy needs)."""
    positive("total.divisor", divisor)
    return _weighted(lambda upload: upload.count, lambda upload: jnp.float32(divisor))


def _weighted(weight: Callable[[Upload], Array], divisor: Callable[[Upload], Array]) -> Aggregator:
    """``sum weight_i upload_i / divisor(sum)``; ``extra`` is always averaged with all present clients counting alike."""

    def lift(key: Key, state: PyTree, upload: Upload) -> tuple[Upload, PyTree]:
        w = weight(upload)
        return upload._replace(
            delta=tree.scale(w, upload.delta), state=tree.scale(w, upload.state)
        ), ()

    def finalize(
        key: Key, state: PyTree, upload: Upload, stats: PyTree
    ) -> tuple[Upload, PyTree, Metrics]:
        d = divisor(upload)
        share = 1 / jnp.where(d > 0, d, 1)
        alike = 1 / jnp.maximum(upload.count, 1)
        averaged = upload._replace(
            delta=tree.scale(share, upload.delta),
            state=tree.scale(share, upload.state),
            extra=tree.scale(alike, upload.extra),
        )
        return averaged, state, {}

    return stage(lift, finalize, reduce="sum")


def clip(max_norm: float) -> Aggregator:
    """Scales each client's pseudo-gradient to a Euclidean norm of at most ``max_norm``; reports ``clipped``, the share it changed."""
    positive("clip.max_norm", max_norm)

    def lift(key: Key, state: PyTree, upload: Upload) -> tuple[Upload, PyTree]:
        norm = tree.norm(upload.delta)
        factor = jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-30))
        return upload._replace(delta=tree.scale(factor, upload.delta)), Mean(
            (norm > max_norm).astype(jnp.float32), jnp.float32(1)
        )

    def finalize(
        key: Key, state: PyTree, upload: Upload, stats: Mean
    ) -> tuple[Upload, PyTree, Metrics]:
        return upload, state, {"clipped": stats}

    return stage(lift, finalize)


def median() -> Aggregator:
    """The coordinate-wise median over present clients, unweighted (Yin et al. 2018, Definition 1); ``extra`` is averaged."""

    def middle(leaf: Array, present: Array) -> Array:
        shown = present.reshape(present.shape + (1,) * (leaf.ndim - 1))
        ordered = jnp.sort(jnp.where(shown, leaf, jnp.inf), axis=0)
        n = jnp.sum(present, dtype=jnp.int32)
        low = jnp.take(ordered, jnp.maximum(n - 1, 0) // 2, axis=0)
        high = jnp.take(ordered, n // 2, axis=0, mode="clip")
        return (0.5 * (low + high)).astype(leaf.dtype)

    def finalize(
        key: Key, state: PyTree, upload: Upload, stats: PyTree
    ) -> tuple[Upload, PyTree, Metrics]:
        present = upload.count > 0
        n = jnp.maximum(jnp.sum(upload.count), 1)
        delta, statistics = jax.tree.map(
            lambda leaf: middle(leaf, present), (upload.delta, upload.state)
        )
        extra = tree.scale(
            1 / n, tree.total(tree.where(present, upload.extra, tree.zeros_like(upload.extra)))
        )
        return (
            Upload(delta, statistics, extra, jnp.sum(upload.weight), jnp.sum(upload.count)),
            state,
            {},
        )

    return stage(finalize=finalize, reduce="stack")
