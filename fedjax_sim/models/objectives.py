"""Objectives: the loss that a client minimises, and the metrics that are reported about a model.

All means are over unmasked examples only.
"""

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
      model: an object with the ``apply`` of :class:`fedjax_sim.models.Model`. Its logits are
        ``[B, K]`` for labels ``[B]``, or ``[B, T, K]`` for labels ``[B, T]``; then the means are
        over tokens.
      statistics: policy for batch statistics. With ``"average"`` and ``"local"`` the model runs in
        training mode and its new state is kept: averaged by the server, or kept by the client
        under :func:`fedjax_sim.clients.private_statistics`. With ``"frozen"`` clients train in
        evaluation mode: they use the server's statistics, which do not change, and no dropout.
      ignore: label that is excluded from the loss and the accuracy, such as a sequence's padding.

    Raises:
      FedError: if ``statistics`` is not one of the three policies.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import jax.numpy as jnp
      >>> model = fs.models.logistic(classes=4)
      >>> batch = fs.Batch(x=jnp.ones((3, 2)), y=jnp.array([0, 0, 1]), mask=jnp.ones(3, bool))
      >>> variables = fs.Variables(*model.init(jax.random.key(0), batch.x))
      >>> objective = fs.classification(model)
      >>> loss, (state, metrics) = objective.loss(variables, jax.random.key(1), batch, True)
      >>> f"{loss:.3f}"
      '1.386'
      >>> f"{metrics['accuracy'].value:.3f}"
      '0.667'
    """
    policies = ("average", "frozen", "local")
    require(
        statistics in policies,
        "statistics must name a policy for batch statistics",
        got=repr(statistics),
        fix=f"choose one of {', '.join(policies)}",
        setting="statistics",
    )

    def scores(out: Array, batch: Batch) -> tuple[Array, Metrics]:
        mask = batch.mask.reshape(batch.mask.shape + (1,) * (batch.y.ndim - 1))
        keep = mask & jnp.ones(batch.y.shape, bool)
        keep = keep if ignore is None else keep & (batch.y != ignore)
        losses = cross_entropy(out, batch.y)
        correct = is_largest(out, batch.y)
        loss = masked_mean(losses, keep)
        return loss.value, {"loss": loss, "accuracy": masked_mean(correct, keep)}

    return supervised(model, scores, statistics)


def regression(model: Any, statistics: Statistics = "average") -> Objective:
    """Half the squared error, summed over the axes of the output; reports ``loss``.

    Args:
      model: an object with the ``apply`` of :class:`fedjax_sim.models.Model`. Its output has the
        shape of the targets, ``[B, ...]``.
      statistics: policy for batch statistics, see :func:`classification`.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import jax.numpy as jnp
      >>> model = fs.from_functions(lambda key, x: jnp.array(2.0), lambda w, x: w * x)
      >>> batch = fs.Batch(x=jnp.ones((2, 1)), y=jnp.array([[2.0], [4.0]]), mask=jnp.ones(2, bool))
      >>> variables = fs.Variables(*model.init(jax.random.key(0), batch.x))
      >>> loss, _ = fs.regression(model).loss(variables, jax.random.key(1), batch, True)
      >>> float(loss)
      1.0
    """

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
    """Returns an objective from a model and a function of its output.

    Args:
      model: an object with the ``apply`` of :class:`fedjax_sim.models.Model`.
      scores: ``(out, batch) -> (loss, metrics)``: the scalar mean loss over unmasked examples, and
        metrics as :class:`fedjax_sim.Mean`.
      statistics: policy for batch statistics, see :func:`classification`.
    """

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
    """Softmax cross-entropy of each row.

    The label's logit is selected by comparison and not gathered: the gradient of a gather is a
    scatter, which a CPU runs one element at a time, and which XLA fuses differently in different
    programs, so that the last bit of the result differs.

    Args:
      logits: float ``[..., K]``, unnormalised.
      labels: int ``[...]`` in 0..K-1.

    Returns:
      Losses ``[...]``, of the dtype of the logits.
    """
    is_label = jnp.arange(logits.shape[-1]) == labels[..., None]
    return jax.nn.logsumexp(logits, axis=-1) - _select(is_label, logits)


def is_largest(logits: Array, labels: Array) -> Array:
    """Whether the label is ``argmax(logits)``, for each row.

    Computed with a sum of weights per row, because ``argmax`` reduces pairs, which a CPU does one
    element at a time.

    Args:
      logits: float ``[..., K]``.
      labels: int ``[...]``.

    Returns:
      bool ``[...]``. Of several largest logits the first counts; a row with NaN is False.
    """
    index = jnp.arange(logits.shape[-1])
    largest = logits == jnp.max(logits, axis=-1, keepdims=True)
    before_label = index < labels[..., None]
    at_label = index == labels[..., None]
    weights = jnp.where(largest & at_label, 1.0, jnp.where(largest & before_label, 2.0, 0.0))
    return _row_sum(weights) == 1


@jax.custom_jvp
def _select(is_label: Array, logits: Array) -> Array:
    """The logit of each row at which ``is_label`` is True."""
    return _row_sum(jnp.where(is_label, logits, 0))


@_select.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return _select(*primals), jnp.sum(jnp.where(primals[0], tangents[1], 0), axis=-1)


def _row_sum(rows: Array) -> Array:
    """Sums of rows ``[..., K]`` as a product with ones.

    A CPU computes several elements of the product at a time, each summed in a fixed order.
    """
    return jnp.matmul(rows, jnp.ones(rows.shape[-1], rows.dtype), precision="highest")


def masked_mean(values: Array, keep: Array) -> Mean:
    """Mean of the values that are kept.

    Args:
      values: float or bool ``[...]``.
      keep: bool ``[...]``, of the same shape.
    """
    total = jnp.sum(jnp.where(keep, values, 0), dtype=jnp.float32)
    return Mean(total, jnp.sum(keep, dtype=jnp.float32))
