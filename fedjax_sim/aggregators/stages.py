"""Aggregators as stages of a chain.

Lifts run left to right on each client; finalizers run right to left on the server. The last stage
reduces: it sums or stacks the uploads of present clients.
"""

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
    """Makes an aggregator; slots that are not given change nothing.

    Args:
      lift: ``(key, state, upload) -> (upload, stats)``, for each client.
      finalize: ``(key, state, upload, stats) -> (upload, state, metrics)``, once.
      init: ``variables -> state``.
      reduce: ``"sum"``, ``"stack"``, or None for a stage before a reducer. See
        :class:`fedjax_sim.Aggregator`.

    Example:
      A stage that sends only the sign of each entry:

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> def lift(key, state, upload):
      ...     return upload._replace(delta=jax.tree.map(jnp.sign, upload.delta)), ()
      >>> sign = fs.aggregators.stage(lift)
      >>> upload, stats = sign.lift(jax.random.key(0), (), fs.Upload(jnp.array([3.0, -2.0])))
      >>> upload.delta.tolist()
      [1.0, -1.0]
    """
    return Aggregator(init, lift, finalize, reduce)


def require_reducer(aggregator: Aggregator) -> None:
    """Requires an aggregator that reduces.

    Raises:
      FedError: for a stage that does not.
    """
    require(
        aggregator.reduce is not None,
        "an aggregator must reduce",
        got="stages that do not reduce",
        fix="chain them with mean, unweighted_mean, scaled_sum or median",
        setting="aggregator",
    )


def chain(*stages: Aggregator) -> Aggregator:
    """Combines stages into one aggregator.

    Each stage has its own key, state and stats. The last stage, and no other, reduces.

    Args:
      *stages: in the order in which they change a client's upload.

    Returns:
      An aggregator whose state and stats are tuples with one entry per stage, and whose metrics are
      those of all stages.

    Raises:
      FedError: unless exactly the last stage reduces.

    Example:
      >>> import fedjax_sim as fs
      >>> aggregator = fs.aggregators.chain(fs.aggregators.clip(1.0), fs.aggregators.mean())
      >>> aggregator.reduce
      'sum'
      >>> algorithm = fs.fedavg(fs.tasks.quadratic().objective, aggregator=aggregator)
    """
    reducers = [i for i, s in enumerate(stages) if s.reduce]
    require(
        reducers == [len(stages) - 1],
        "a chain of aggregators must end with its only reducer",
        got=f"reducers at places {reducers} of {len(stages)}",
        fix="put mean, unweighted_mean, scaled_sum or median last, and no other of them before it",
        setting="aggregator",
    )

    def init(variables: Variables) -> PyTree:
        return tuple(s.init(variables) for s in stages)

    def lift(key: Key, state: PyTree, upload: Upload) -> tuple[Upload, PyTree]:
        stats = []
        for i, s in enumerate(stages):
            upload, stat = s.lift(fold_in(key, i), state[i], upload)
            stats.append(stat)
        return upload, tuple(stats)

    def finalize(
        key: Key, state: PyTree, upload: Upload, stats: PyTree
    ) -> tuple[Upload, PyTree, Metrics]:
        states = list(state)
        metrics: Metrics = {}
        for i, s in reversed(list(enumerate(stages))):
            upload, states[i], report = s.finalize(fold_in(key, i), state[i], upload, stats[i])
            metrics |= report
        return upload, tuple(states), metrics

    return Aggregator(init, lift, finalize, stages[-1].reduce)


def mean() -> Aggregator:
    """The mean over the cohort, weighted by the clients' numbers of examples.

    Reference: McMahan et al. 2017, Algorithm 1.

    Example:
      Two clients with 3 examples and 1 example, and pseudo-gradients 4 and 0:

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> mean = fs.aggregators.mean()
      >>> key = jax.random.key(0)
      >>> a, _ = mean.lift(key, (), fs.Upload(jnp.float32(4), weight=3.0, count=1.0))
      >>> b, _ = mean.lift(key, (), fs.Upload(jnp.float32(0), weight=1.0, count=1.0))
      >>> upload, state, metrics = mean.finalize(key, (), jax.tree.map(jnp.add, a, b), ())
      >>> float(upload.delta)
      3.0
    """
    return _weighted(lambda upload: upload.weight, lambda upload: upload.weight)


def unweighted_mean() -> Aggregator:
    """The mean over the cohort with equal weights.

    Reference: Reddi et al. 2021; Karimireddy et al. 2020.

    Example:
      Two clients with 3 examples and 1 example, and pseudo-gradients 4 and 0:

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> mean = fs.aggregators.unweighted_mean()
      >>> key = jax.random.key(0)
      >>> a, _ = mean.lift(key, (), fs.Upload(jnp.float32(4), weight=3.0, count=1.0))
      >>> b, _ = mean.lift(key, (), fs.Upload(jnp.float32(0), weight=1.0, count=1.0))
      >>> upload, state, metrics = mean.finalize(key, (), jax.tree.map(jnp.add, a, b), ())
      >>> float(upload.delta)
      2.0
    """
    return _weighted(lambda upload: upload.count, lambda upload: upload.count)


def scaled_sum(divisor: float = 1.0) -> Aggregator:
    """The unweighted sum over the cohort, divided by a constant.

    Differential privacy needs the *expected* cohort as the divisor, not the realised one.

    Args:
      divisor: above 0, such as the expected number of clients in a cohort.

    Raises:
      FedError: if the divisor is not positive.

    Example:
      Two clients with pseudo-gradients 4 and 0, of 4 expected ones:

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> aggregator = fs.aggregators.scaled_sum(4.0)
      >>> key = jax.random.key(0)
      >>> a, _ = aggregator.lift(key, (), fs.Upload(jnp.float32(4), weight=3.0, count=1.0))
      >>> b, _ = aggregator.lift(key, (), fs.Upload(jnp.float32(0), weight=1.0, count=1.0))
      >>> upload, state, metrics = aggregator.finalize(key, (), jax.tree.map(jnp.add, a, b), ())
      >>> float(upload.delta)
      1.0
    """
    positive("scaled_sum.divisor", divisor)
    return _weighted(lambda upload: upload.count, lambda upload: jnp.float32(divisor))


def _weighted(weight: Callable[[Upload], Array], divisor: Callable[[Upload], Array]) -> Aggregator:
    """Makes the reducer ``sum_i weight(upload_i) upload_i / divisor(sum)``.

    ``extra`` is always averaged over present clients with equal weights.

    Args:
      weight: one client's upload to its weight, float32 scalar.
      divisor: the summed upload to the divisor, float32 scalar.
    """

    def lift(key: Key, state: PyTree, upload: Upload) -> tuple[Upload, PyTree]:
        w = weight(upload)
        weighted = upload._replace(
            delta=tree.scale(w, upload.delta), state=tree.scale(w, upload.state)
        )
        return weighted, ()

    def finalize(
        key: Key, state: PyTree, upload: Upload, stats: PyTree
    ) -> tuple[Upload, PyTree, Metrics]:
        d = divisor(upload)
        factor = 1 / jnp.where(d > 0, d, 1)
        equal = 1 / jnp.maximum(upload.count, 1)
        averaged = upload._replace(
            delta=tree.scale(factor, upload.delta),
            state=tree.scale(factor, upload.state),
            extra=tree.scale(equal, upload.extra),
        )
        return averaged, state, {}

    return stage(lift, finalize, reduce="sum")


def clip(max_norm: float) -> Aggregator:
    """Scales each client's pseudo-gradient down to a Euclidean norm of at most ``max_norm``.

    A stage before a reducer. It reports the metric ``clipped``, the share of present clients whose
    pseudo-gradient was scaled.

    Args:
      max_norm: largest norm over all leaves, above 0.

    Raises:
      FedError: if ``max_norm`` is not positive.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> clip = fs.aggregators.clip(1.0)
      >>> upload, stats = clip.lift(jax.random.key(0), (), fs.Upload(jnp.array([0.0, 4.0])))
      >>> upload.delta.tolist(), float(stats.value)
      ([0.0, 1.0], 1.0)
    """
    positive("clip.max_norm", max_norm)

    def lift(key: Key, state: PyTree, upload: Upload) -> tuple[Upload, PyTree]:
        norm = tree.norm(upload.delta)
        factor = jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-30))
        clipped = Mean((norm > max_norm).astype(jnp.float32), jnp.float32(1))
        return upload._replace(delta=tree.scale(factor, upload.delta)), clipped

    def finalize(
        key: Key, state: PyTree, upload: Upload, stats: Mean
    ) -> tuple[Upload, PyTree, Metrics]:
        return upload, state, {"clipped": stats}

    return stage(lift, finalize)


def median() -> Aggregator:
    """The coordinate-wise median over present clients, unweighted; ``extra`` is averaged.

    Reference: Yin et al. 2018, Definition 1.

    Example:
      Three clients, of which one is an outlier:

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> median = fs.aggregators.median()
      >>> delta = jnp.array([[1.0, 2.0], [3.0, 1.0], [1e6, -1e6]])
      >>> uploads = fs.Upload(delta, weight=jnp.ones(3), count=jnp.ones(3))
      >>> upload, state, metrics = median.finalize(jax.random.key(0), (), uploads, ())
      >>> upload.delta.tolist()
      [3.0, 1.0]
    """

    def finalize(
        key: Key, state: PyTree, upload: Upload, stats: PyTree
    ) -> tuple[Upload, PyTree, Metrics]:
        present = upload.count > 0
        n = jnp.maximum(jnp.sum(upload.count), 1)
        delta, statistics = jax.tree.map(
            lambda leaf: _median(leaf, present), (upload.delta, upload.state)
        )
        extra = tree.where(present, upload.extra, tree.zeros_like(upload.extra))
        extra = tree.scale(1 / n, tree.total(extra))
        weight = jnp.sum(upload.weight)
        return Upload(delta, statistics, extra, weight, jnp.sum(upload.count)), state, {}

    return stage(finalize=finalize, reduce="stack")


def _median(leaf: Array, present: Array) -> Array:
    """Returns the median over the rows of ``leaf``, ``[C, ...]``, that are present, ``bool[C]``."""
    mask = present.reshape(present.shape + (1,) * (leaf.ndim - 1))
    ordered = jnp.sort(jnp.where(mask, leaf, jnp.inf), axis=0)
    n = jnp.sum(present, dtype=jnp.int32)
    low = jnp.take(ordered, jnp.maximum(n - 1, 0) // 2, axis=0)
    high = jnp.take(ordered, n // 2, axis=0, mode="clip")
    return (0.5 * (low + high)).astype(leaf.dtype)
