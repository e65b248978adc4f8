"""Feature skew: noise in ``x`` whose level depends on the client; the partition does not change."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim.core.errors import not_negative, require
from fedjax_sim.data.partition import generator
from fedjax_sim.data.population import Population

NOISE = 3
"""Stream of a data set's seed, after those of :mod:`fedjax_sim.data.federation`."""


def feature_noise(data: Population, *, noise: float = 0.1, seed: int = 0) -> Population:
    """Adds Gaussian noise whose standard deviation grows from client to client.

    It is ``noise * i / (N - 1)`` for client i = 0..N-1, as in NIID-Bench. The noise is drawn once,
    so that an example is the same in every epoch; NIID-Bench draws new noise each time. For a test
    population, which has the same clients and so the same levels, use another seed.

    Args:
      data: a population whose leaves of ``x`` are floating point ``[examples, ...]``; their dtype
        is kept.
      noise: standard deviation for the last client, in units of ``x``.
      seed: of the noise; a client's draws do not depend on the other clients.

    Returns:
      A population with new ``x``; the other fields are unchanged.

    Raises:
      FedError: if the noise is negative, or ``x`` has leaves that are not floating point.

    Reference: Li et al., "Federated Learning on Non-IID Data Silos", arXiv 2102.02079, section IV
    (noise-based feature imbalance).

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> data = fs.data.by_client(np.zeros((6, 2)), np.zeros(6), np.repeat([0, 1, 2], 2))
      >>> noisy = fs.data.feature_noise(data, noise=1.0)
      >>> bool(noisy.x[:2].any()), bool(noisy.x[2:].all())
      (False, True)
    """
    not_negative("noise", noise)
    leaves, structure = jax.tree.flatten(data.x)
    kinds = sorted(
        {str(leaf.dtype) for leaf in leaves if not jnp.issubdtype(leaf.dtype, jnp.floating)}
    )
    require(
        not kinds,
        "noise needs features that are floating point",
        got=", ".join(kinds),
        fix="convert x first, for example to [0, 1]",
        setting="noise",
    )
    levels = np.linspace(0, noise, data.clients)
    noisy = [
        _noisy(leaf, data.offsets, levels, (seed, NOISE, number))
        for number, leaf in enumerate(leaves)
    ]
    return data._replace(x=jax.tree.unflatten(structure, noisy))


def _noisy(
    x: np.ndarray, offsets: np.ndarray, levels: np.ndarray, stream: tuple[int, int, int]
) -> np.ndarray:
    x = np.array(x)
    for client, level in enumerate(levels):
        rows = x[offsets[client] : offsets[client + 1]]
        noise = generator(*stream, client).standard_normal(rows.shape, np.float32)
        rows += (level * noise).astype(x.dtype)
    return x
