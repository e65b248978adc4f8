"""Upload codecs, and the wrapper by which a client sends later what a codec leaves out now."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.clients.personalization import Private
from fedjax_sim.core import tree
from fedjax_sim.core.errors import fraction as check_fraction
from fedjax_sim.core.types import (
    Array,
    Key,
    Learner,
    Mean,
    Message,
    Metrics,
    PyTree,
    Upload,
    Variables,
)


class Codec(NamedTuple):
    """A lossy code for pseudo-gradients.

    Attributes:
      transmit: ``(key, values) -> values``: what the server decodes; same structure, shapes and
        dtypes.
      nbytes: ``values -> bytes``: number of bytes sent; ``values`` may be ``ShapeDtypeStruct``.
    """

    transmit: Callable[[Key, PyTree], PyTree]
    nbytes: Callable[[PyTree], int]


def top_k(fraction: float) -> Codec:
    """Sparsification: sends the largest entries of each leaf by magnitude, and 0 for the others.

    A sent entry takes 8 bytes: 4 for its value and 4 for its index.

    Args:
      fraction: share of each leaf's entries that is sent, at least one entry, in (0, 1].

    Raises:
      FedError: if ``fraction`` lies outside (0, 1].

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> codec = fs.clients.top_k(0.5)
      >>> codec.transmit(jax.random.key(0), jnp.array([3.0, -5.0, 1.0, 2.0])).tolist()
      [3.0, -5.0, 0.0, 0.0]
      >>> codec.nbytes(jnp.zeros(4))
      16
    """
    check_fraction("top_k.fraction", fraction)

    def kept(size: int) -> int:
        return max(1, round(fraction * size))

    def sparse(leaf: Array) -> Array:
        flat = leaf.reshape(-1)
        _, indices = lax.top_k(jnp.abs(flat), kept(flat.size))
        return jnp.zeros_like(flat).at[indices].set(flat[indices]).reshape(leaf.shape)

    def nbytes(values: PyTree) -> int:
        return sum(8 * kept(math.prod(leaf.shape)) for leaf in jax.tree.leaves(values))

    return Codec(lambda key, values: jax.tree.map(sparse, values), nbytes)


def error_feedback(learner: Learner, codec: Codec) -> Learner:
    """Sends the codec's version of ``delta + residual`` and keeps the rest in client memory.

    Law: the sum of what was sent, plus the residual, equals the sum of the pseudo-gradients.
    Reference: Seide et al. 2014; Karimireddy et al. 2019, Algorithm 1.

    Args:
      learner: the learner whose pseudo-gradient is compressed; its ``state`` and ``extra`` are sent
        as they are.
      codec: the code.

    Returns:
      A learner whose memory is ``Private(inner, own)``: the learner's memory, and the residual,
      like the parameters. It reports the metric ``residual_norm``.

    Example:
      >>> import jax
      >>> import optax
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.clients.learner import gradient_learner
      >>> task = fs.tasks.quadratic()
      >>> inner = gradient_learner(task.objective, optax.sgd(0.1))
      >>> learner = fs.clients.error_feedback(inner, fs.clients.top_k(0.1))
      >>> learner.init(task.init(jax.random.key(0)))
      Private(inner=(), own={'x': Array([0., 0., 0., 0., 0.], dtype=float32)})
    """

    def init(variables: Variables) -> Private:
        return Private(learner.init(variables), tree.zeros_like(variables.params))

    def start(key: Key, message: Message, memory: Private) -> PyTree:
        return learner.start(key, message, memory.inner)

    def step(
        key: Key, message: Message, memory: Private, local: PyTree, batch: PyTree
    ) -> tuple[PyTree, Metrics]:
        return learner.step(key, message, memory.inner, local, batch)

    def finish(
        key: Key, message: Message, memory: Private, local: PyTree
    ) -> tuple[Upload, Private, Metrics]:
        upload, inner, metrics = learner.finish(key, message, memory.inner, local)
        wanted = tree.add(upload.delta, memory.own)
        sent = codec.transmit(jax.random.fold_in(key, 1), wanted)
        residual = tree.sub(wanted, sent)
        norm = {"residual_norm": Mean(tree.norm(residual), jnp.float32(1))}
        return upload._replace(delta=sent), Private(inner, residual), {**metrics, **norm}

    def personal(message: Message, memory: Private) -> Variables:
        return learner.personal(message, memory.inner)

    return Learner(init, start, step, finish, personal)
