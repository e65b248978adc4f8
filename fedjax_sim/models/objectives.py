"""Objectives: what a client minimises, and what is reported about a model. Means are over unmasked examples only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from fedjax_sim.core.errors import require
from fedjax_sim.core.types import Array, Batch, Key, Mean, Metrics, Objective, PyTree, Variables

Statistics = Literal["average", "frozen", "local"]


def classification(
    model: Any, statistics: Statistics = "average", ignore: int | None = None
) -> Objective:
    """Softmax cross-entropy with integer labels; reports ``loss`` and ``accuracy``.

    Args:
      model: anything with the ``apply`` of :class:`fedjax_sim.models.Model`; logits are ``[B, K]`` for labels ``[B]``, or
        ``[B, T, K]`` for labels ``[B, T]``, where every token counts alike.
      statistics: how batch statistics live. ``"average"`` and ``"local"``: the model runs in training mode and its new state is
        kept (averaged by the server, or kept by the client under :func:`fedjax_sim.clients.private_statistics`). ``"frozen"``:
        training runs in evaluation mode (the server's statistics are used and never move; dropout is off, too).
      ignore: a label that counts neither in the loss nor in the accuracy (padding of a sequence).
    """
    known = ("average", "frozen", "local")
    require(
        statistics in known,
        "statistics must name a policy for batch statistics",
        got=repr(statistics),
        fix=f"choose one of {', '.join(known)}",
    )

    def scores(out: Array, batch: Batch) -> tuple[Array, Metrics]:
        keep = batch.mask.reshape(batch.mask.shape + (1,) * (batch.y.ndim - 1)) & jnp.ones(
            batch.y.shape, bool
        )
        keep = keep if ignore is None else keep & (batch.y != ignore)
        losses = cross_entropy(out, batch.y)
        hits = is_largest(out, batch.y)
        loss = masked_mean(losses, keep)
        return loss.value, {"loss": loss, "accuracy": masked_mean(hits, keep)}

    return supervised(model, scores, statistics)


def regression(model: Any, statistics: Statistics = "average") -> Objective:
    """Half the squared error, summed over the output's axes; reports ``loss``. Targets have the output's shape."""

    def scores(out: Array, batch: Batch) -> tuple[Array, Metrics]:
        losses = 0.5 * jnp.sum(jnp.square(out - batch.y).reshape(batch.mask.shape[0], -1), axis=-1)
        loss = masked_mean(losses, batch.mask)
        return loss.value, {"loss": loss}

    return supervised(model, scores, statistics)


def supervised(
    model: Any,
    scores: Callable[[Array, Batch], tuple[Array, Metrics]],
    statistics: Statistics = "average",
) -> Objective:
    """An objective from a model and ``scores: (out, batch) -> (loss, metrics)``."""

    def loss(
        variables: Variables, key: Key, batch: Batch, train: bool
    ) -> tuple[Array, tuple[PyTree, Metrics]]:
        frozen = statistics == "frozen"
        out, state = model.apply(
            variables.params, variables.state, batch.x, train=train and not frozen, key=key
        )
        value, metrics = scores(out, batch)
        return value, (variables.state if frozen or not train else state, metrics)

    return Objective(loss, statistics)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Softmax cross-entropy ``[...]`` of logits ``[..., K]`` and integer labels ``[...]``.

    The label's logit is chosen by comparison, not gathered: the gradient of a gather is a scatter, which a CPU runs one element at a
    time, and which XLA folds into its surroundings in one program and not in another, so that the last bit differs.
    """
    chosen = jnp.arange(logits.shape[-1]) == labels[..., None]
    return jax.nn.logsumexp(logits, axis=-1) - _pick(chosen, logits)


def is_largest(logits: Array, labels: Array) -> Array:
    """Whether ``argmax(logits)`` is the label, bool ``[...]``; of equal logits the first counts, and with a NaN among
    them none. As two counts, for an argmax reduces
    pairs, which a CPU does one element at a time."""
    place = jnp.arange(logits.shape[-1])
    top = logits == jnp.max(logits, axis=-1, keepdims=True)
    earlier, here = place < labels[..., None], place == labels[..., None]
    return _total(jnp.where(top & here, 1.0, jnp.where(top & earlier, 2.0, 0.0))) == 1


@jax.custom_jvp
def _pick(chosen: Array, logits: Array) -> Array:
    """The one chosen number of every row."""
    return _total(jnp.where(chosen, logits, 0))


@_pick.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return _pick(*primals), jnp.sum(jnp.where(primals[0], tangents[1], 0), axis=-1)


def _total(rows: Array) -> Array:
    """Sums of rows ``[..., K]`` as a product with ones, which a CPU computes several elements at a time and sums one by one."""
    return jnp.matmul(rows, jnp.ones(rows.shape[-1], rows.dtype), precision="highest")


def masked_mean(values: Array, keep: Array) -> Mean:
    """Mean of the values that are kept, both of one shape."""
    return Mean(
        jnp.sum(jnp.where(keep, values, 0), dtype=jnp.float32), jnp.sum(keep, dtype=jnp.float32)
    )
