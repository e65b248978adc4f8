"""What becomes of a round in which something is not finite, and of the clients to blame.

A client is *lost* in a trip when what it leaves behind - its upload as the lift leaves it, the statistics of the lift, its new memory
row - has a NaN or an infinity, or when the Euclidean norm of its pseudo-gradient, before the lift, exceeds ``max_norm``. It is looked
at once, when it is done. Its metrics are not looked at: a loss that is not finite, but spoils nothing else, is only reported.

* ``propagate``: nobody looks. The program is the one that it would be without all this.
* ``drop``: whoever is lost is absent from then on. Its upload is not added (in a stack it is zeros), it weighs and counts 0, its memory
  row stays as it was, its metrics are absent. The roster that the trip gives back, which the next trip and the server get, does not
  have it. So the round is the one for which it was not sampled, where it is lost in the first trip; in a later one, what it sent in
  an earlier one stays. How many are lost is the round's metric ``dropped``, and who, its metric of clients ``nonfinite``, int32[C]:
  the id where a client was lost, else -1. Like every metric, they are not private.
* ``raise``: the round is looked at as a whole, which costs next to nothing, and *refused* when a part of the algorithm's state that was
  finite, or a memory row of its cohort, is not: the state stays the one before it, its counter too, and the loop stops there. Then
  the round is run once more, as under ``drop``, to name those to blame. With ``max_norm``, clients are looked at at once. To be able to
  refuse a round, a device that holds the memory table keeps the cohort's rows twice. Further rounds of the same call are the same
  round again, and refused as well. A reduction that withstands a client that is not finite, such as a median, leaves nothing to refuse.
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
"""Name, among the metrics of clients, of who was lost."""


class NonFinitePolicy(NamedTuple):
    """A policy. Make one with :func:`guard`; this one without arguments looks at nothing."""

    nonfinite: Policy = "propagate"
    max_norm: float | None = None
    patience: int | None = None

    @property
    def checks_clients(self) -> bool:
        """Whether each client is looked at."""
        return self.nonfinite == "drop" or self.max_norm is not None

    @property
    def can_reject(self) -> bool:
        """Whether a round may be refused."""
        return self.nonfinite == "raise"


OFF = NonFinitePolicy()


def guard(
    nonfinite: Policy = "raise", max_norm: float | None = None, patience: int | None = 3
) -> NonFinitePolicy:
    """What to do about results that are not finite.

    Args:
      nonfinite: propagate them, drop the clients that they come from, or raise: keep the state before that round, and name those clients.
      max_norm: treat a client whose pseudo-gradient has a larger Euclidean norm in the same way.
      patience: stop after so many rounds in a row without a finite training loss, or whose clients were all dropped; none: never.

    Raises:
      FedError: for an unknown policy, a number that is not positive, or a ``max_norm`` that nobody would look at.
    """
    require(
        nonfinite in POLICIES,
        "unknown guard.nonfinite",
        got=repr(nonfinite),
        fix=suggest(str(nonfinite), POLICIES),
        setting="guard.nonfinite",
    )
    for name, value in (("guard.max_norm", max_norm), ("guard.patience", patience)):
        if value is not None:
            positive(name, value)
    what, do = (
        "guard.max_norm needs somebody who looks",
        "drop such clients or raise: guard.nonfinite = 'raise'",
    )
    require(
        max_norm is None or nonfinite != "propagate",
        what,
        got="guard.nonfinite = 'propagate'",
        fix=do,
    )
    return NonFinitePolicy(nonfinite, max_norm, patience)


# ---------------------------------------------------------------------------------------------------------------- clients


def is_dropped(guard: NonFinitePolicy, delta: PyTree, left: PyTree) -> Array | None:
    """bool: whether a client is lost; ``None`` where nobody looks.

    Args:
      guard: the policy.
      delta: its pseudo-gradient, before the lift.
      left: all that it leaves behind.
    """
    if not guard.checks_clients:
        return None
    whole = finite(left)
    return ~whole if guard.max_norm is None else ~(whole & (tree.norm(delta) <= guard.max_norm))


def finite(values: PyTree) -> Array:
    """bool: whether no float in any leaf is NaN or infinite."""
    floats = [leaf for leaf in jax.tree.leaves(values) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in floats], bool))


def drop_clients(roster: Roster, dropped: Array) -> Roster:
    """The roster without those who are lost (bool[C])."""
    return roster._replace(
        id=jnp.where(dropped, roster.population, roster.id),
        steps=jnp.where(dropped, 0, roster.steps),
        size=jnp.where(dropped, 0, roster.size),
        dropped=dropped if roster.dropped is None else dropped | roster.dropped,
    )


def apply_to_outcome(
    guard: NonFinitePolicy, roster: Roster, outcome: Outcome
) -> tuple[Roster, Outcome]:
    """Who is still there after a round of this roster, and its outcome with who is not.

    Raises:
      FedError: for an outcome that does not tell.
    """
    if not guard.checks_clients:
        return roster, outcome
    do = "let it report the outcome of its last trip, which got the roster that the trip before gave back"
    require(
        NONFINITE in outcome.clients,
        "an algorithm's outcome says nothing of lost clients",
        got=sorted(outcome.clients),
        fix=do,
    )
    lost = outcome.clients[NONFINITE]
    count = {"dropped": jnp.sum(lost, dtype=jnp.int32)} if guard.nonfinite == "drop" else {}
    named = {**outcome.clients, NONFINITE: jnp.where(lost, roster.id, -1)}
    return drop_clients(roster, lost), Outcome({**outcome.metrics, **count}, named)
