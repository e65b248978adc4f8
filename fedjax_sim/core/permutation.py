"""A stateless permutation: the place of element ``i`` of ``0..n-1``, for a traced ``n``.

No array of size ``n`` is built. The permutation is a generalized Feistel network on ``Z_a x Z_b``
with cycle walking (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002,
sections 4 and 5): ``b`` is the power of two next to ``sqrt n`` and ``a = ceil(n / b)``, so fewer
than ``b`` of the ``a b`` elements lie outside ``0..n-1``; an element that lands there is permuted
again. Every round is a bijection for any round function, so the whole is one.

It has two uses: the order of a client's examples in an epoch, and a cohort without replacement (the
first C places of a permutation of N), at a cost of O(C) instead of O(N).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.core.types import Array, Key

ROUNDS = 24
"""Feistel rounds. With 16, the frequencies of the orders of 5 elements differed by 2 %; with 24,
600,000 draws of 3 to 7 elements show no deviation from uniform (see tests)."""


def words_of(key: Key) -> Array:
    """Returns uint32[2] from a typed key: the words that select a family of permutations."""
    return jax.random.bits(key, (2,), jnp.uint32)


def permute(words: Array, index: Array, n: Array | int, number: Array | int = 0) -> Array:
    """Returns the places of ``index`` under a permutation of ``0..n-1``.

    Args:
      words: uint32[2], from :func:`words_of`; equal words select the same family of permutations.
      index: int32, any shape, values in ``0..n-1``.
      n: size of the domain, int32 scalar, may be traced; at least 1, at most 2**31 - 1.
      number: int32, broadcast to ``index``: which permutation of the family.

    Returns:
      int32 with the shape of ``index``, values in ``0..n-1``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fedjax_sim.core.permutation import permute, words_of
      >>> places = permute(words_of(jax.random.key(0)), jnp.arange(5), n=5)
      >>> sorted(places.tolist())
      [0, 1, 2, 3, 4]
    """
    n = jnp.maximum(jnp.asarray(n, jnp.uint32), 1)
    twist = _mix(_mix(jnp.asarray(number).astype(jnp.uint32)) * jnp.uint32(0x846CA68B))
    # Flat, because a CPU vectorises long rows but not short ones.
    place, twist = (
        jnp.broadcast_to(x, index.shape).reshape(-1) for x in (index.astype(jnp.uint32), twist)
    )

    def outside(place: Array) -> Array:
        return jnp.any(place >= n)

    def walk(place: Array) -> Array:
        return jnp.where(place >= n, _shuffle(words, twist, place, n), place)

    inside = lax.while_loop(outside, walk, _shuffle(words, twist, place, n))
    return inside.astype(jnp.int32).reshape(index.shape)


@jax.jit  # traced once: tracing its rounds is a large part of the time of a warm start
def _shuffle(words: Array, twist: Array, place: Array, n: Array) -> Array:
    """One pass of the network, a bijection of ``0..a b - 1``.

    Args:
      words: uint32[2].
      twist: uint32[m], the permutation's number after mixing.
      place: uint32[m], values in ``0..a b - 1``.
      n: uint32 scalar.
    """
    bits = (33 - lax.clz(n - 1)) // 2
    b = jnp.uint32(1) << bits
    a = (n + b - 1) >> bits
    low = b - 1
    words = _mix(
        _mix(words[0] + jnp.arange(ROUNDS, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9))
        * jnp.uint32(0x846CA68B)
        ^ words[1]
    )
    # The barrier keeps XLA from recomputing these for every element of every round.
    words, twist, halves, a, low = lax.optimization_barrier(
        (words, twist, (place >> bits, place & low), a, low)
    )

    def two_rounds(i: Array | int, halves: tuple[Array, Array]) -> tuple[Array, Array]:
        left, right = halves
        left = left + ((_hash(right ^ twist, words[2 * i]) * a) >> 16)
        left = jnp.where(left >= a, left - a, left)
        return left, (right + _hash(left ^ twist, words[2 * i + 1])) & low

    def rounds(halves: tuple[Array, Array], unroll: bool) -> tuple[Array, Array]:
        return lax.fori_loop(0, ROUNDS // 2, two_rounds, halves, unroll=unroll)

    # A CPU runs one round on many elements at a time; on an accelerator a loop would launch one
    # kernel per round, while the unrolled rounds become a single kernel.
    left, right = lax.platform_dependent(
        halves, cpu=partial(rounds, unroll=False), default=partial(rounds, unroll=True)
    )
    return (left << bits) | right


def _hash(half: Array, word: Array) -> Array:
    """Returns 16 bits, uint32 like ``half``: the upper half of multiply, xorshift, multiply."""
    x = (half ^ word) * jnp.uint32(0x7FEB352D)
    return ((x ^ (x >> 15)) * jnp.uint32(0x846CA68B)) >> 16


def _mix(x: Array) -> Array:
    """A bijection of 32 bits: a multiply between xorshifts.

    The multipliers are from C. Wellons' search for low avalanche bias.
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    return x ^ (x >> 15)
