"""Policy for NaN and infinite client results: propagate, drop the client, or reject the round.

A client is *dropped* in a trip if its results - its upload after the lift, the statistics of the
lift, its new memory row - contain a NaN or an infinity, or if the Euclidean norm of its
pseudo-gradient, before the lift, exceeds ``max_norm``. The check runs as soon as the client has
finished. Its metrics are not checked: a loss that is not finite, but affects nothing else, is only
reported.

* ``propagate``: nothing is checked. The program is the one without a guard.
* ``drop``: a dropped client is absent from then on. Its upload is not added (in a stack it is
  zeros), its weight and count are 0, its memory row keeps its old value, its metrics are absent.
  The roster that the trip returns, which the next trip and the server get, does not contain it. So
  if it is dropped in the first trip, the round is the one for which it was not sampled; if it is
  dropped in a later one, its uploads of earlier trips still count. The round's metric ``dropped``
  is the number of dropped clients; the client metric ``nonfinite``, int32[C], is the id of a
  dropped client, else -1. Like all metrics, they are not private.
* ``raise``: only the results of the whole round are checked, which costs next to nothing. The round
  is *rejected* if a part of the algorithm's state that was finite, or a memory row of its cohort,
  is not finite afterwards: the state, its round counter included, stays the one before the round,
  and the simulation stops there. The round is then run once more under ``drop`` to name the clients
  that caused it. With ``max_norm``, each client is checked as well. So that a round can be
  rejected, a device that holds the memory table keeps a copy of the cohort's rows. Further rounds
  of the same call repeat the same round and are rejected as well. If the reduction withstands
  clients that are not finite, as a median does, nothing is rejected.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_sim.core import tree
from fedjax_sim.core.errors import positive, require, suggest
from fedjax_sim.core.types import Array, Outcome, PyTree, Roster

Policy = Literal["propagate", "drop", "raise"]
POLICIES = ("propagate", "drop", "raise")

NONFINITE = "nonfinite"
"""Name of the client metric that says which clients were dropped."""


class NonFinitePolicy(NamedTuple):
    """A policy for non-finite results. Make one with :func:`guard`; the default checks nothing."""

    nonfinite: Policy = "propagate"
    max_norm: float | None = None
    patience: int | None = None

    @property
    def checks_clients(self) -> bool:
        """True if the results of each client are checked."""
        return self.nonfinite == "drop" or self.max_norm is not None

    @property
    def can_reject(self) -> bool:
        """True if a round can be rejected."""
        return self.nonfinite == "raise"


OFF = NonFinitePolicy()
"""The policy that checks nothing."""


def guard(
    nonfinite: Policy = "raise", max_norm: float | None = None, patience: int | None = 3
) -> NonFinitePolicy:
    """Makes a policy for results that are NaN or infinite.

    Args:
      nonfinite: "propagate" checks nothing, "drop" leaves out the clients whose results are not
        finite, "raise" keeps the state before such a round, stops, and names these clients.
      max_norm: treat a client whose pseudo-gradient has a larger Euclidean norm in the same way.
      patience: stop after this number of rounds in a row without a finite training loss, or whose
        clients were all dropped; none: never.

    Raises:
      FedError: for an unknown policy, a number that is not positive, or ``max_norm`` together with
        ``"propagate"``.

    Example:
      >>> from fedjax_sim.engine.nonfinite import guard
      >>> guard("drop", max_norm=10.0)
      NonFinitePolicy(nonfinite='drop', max_norm=10.0, patience=3)
      >>> guard().can_reject
      True
    """
    require(
        nonfinite in POLICIES,
        "unknown guard.nonfinite",
        got=repr(nonfinite),
        fix=suggest(str(nonfinite), POLICIES),
        setting="guard.nonfinite",
    )
    if max_norm is not None:
        positive("guard.max_norm", max_norm)
    if patience is not None:
        positive("guard.patience", patience)
    require(
        max_norm is None or nonfinite != "propagate",
        "guard.max_norm has no effect when no client is checked",
        got="guard.nonfinite = 'propagate'",
        fix="set guard.nonfinite = 'drop' or 'raise'",
        setting="guard.nonfinite",
    )
    return NonFinitePolicy(nonfinite, max_norm, patience)


# --------------------------------------------------------------------------------------- clients


def is_dropped(guard: NonFinitePolicy, delta: PyTree, results: PyTree) -> Array | None:
    """Returns whether a client is dropped, a bool scalar, or ``None`` if no client is checked.

    Args:
      guard: the policy.
      delta: the client's pseudo-gradient before the lift.
      results: its upload after the lift, statistics and new memory row.
    """
    if not guard.checks_clients:
        return None
    is_finite = finite(results)
    if guard.max_norm is None:
        return ~is_finite
    return ~(is_finite & (tree.norm(delta) <= guard.max_norm))


def finite(values: PyTree) -> Array:
    """Returns True (a bool scalar) if no float in any leaf is NaN or infinite."""
    floats = [leaf for leaf in jax.tree.leaves(values) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in floats], bool))


def drop_clients(roster: Roster, dropped: Array) -> Roster:
    """Makes the dropped clients (bool[C]) of a roster absent."""
    return roster._replace(
        id=jnp.where(dropped, roster.population, roster.id),
        steps=jnp.where(dropped, 0, roster.steps),
        size=jnp.where(dropped, 0, roster.size),
        dropped=dropped if roster.dropped is None else dropped | roster.dropped,
    )


def apply_to_outcome(
    guard: NonFinitePolicy, roster: Roster, outcome: Outcome
) -> tuple[Roster, Outcome]:
    """Removes the dropped clients from a round's roster and reports them in its outcome.

    Args:
      guard: the policy.
      roster: the round's cohort, ``[C]`` in every leaf.
      outcome: the algorithm's outcome, with the client metric ``nonfinite`` (bool[C]).

    Returns:
      The roster without them, and the outcome with their ids (int32[C], -1 for the others).

    Raises:
      FedError: if the outcome does not say which clients were dropped.
    """
    if not guard.checks_clients:
        return roster, outcome
    require(
        NONFINITE in outcome.clients,
        "the algorithm's outcome lacks the client metric 'nonfinite', which says who was dropped",
        got=sorted(outcome.clients),
        fix="return the outcome of the last trip, and give that trip the roster of the trip before",
    )
    dropped = outcome.clients[NONFINITE]
    count = {"dropped": jnp.sum(dropped, dtype=jnp.int32)} if guard.nonfinite == "drop" else {}
    clients = {**outcome.clients, NONFINITE: jnp.where(dropped, roster.id, -1)}
    return drop_clients(roster, dropped), Outcome({**outcome.metrics, **count}, clients)
