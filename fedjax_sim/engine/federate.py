"""``federate`` makes an algorithm of a learner, an aggregator and a server."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from jax.random import fold_in

from fedjax_sim.aggregators.stages import require_reducer
from fedjax_sim.core import tree
from fedjax_sim.core.types import (
    Aggregator,
    Algorithm,
    Key,
    Learner,
    Member,
    Message,
    Outcome,
    PyTree,
    Roster,
    Server,
    Upload,
    Variables,
)
from fedjax_sim.engine.trip import Trips

# Streams of the key that an algorithm's round gets; one with several trips goes on from here.
TRIP, UPDATE = range(2)


class FederatedState(NamedTuple):
    """State of :func:`federate`'s algorithms."""

    server: PyTree
    aggregator: PyTree


def federate(
    learner: Learner, aggregator: Aggregator, server: Server, epochs: int | None = None
) -> Algorithm:
    """The one-trip algorithm: broadcast, learn, aggregate, update.

    Args:
      learner, aggregator, server: the three owners of state.
      epochs: so many whole passes over each client's data, instead of the local work that the roster asks for.
    """

    require_reducer(aggregator)

    def init(variables: Variables) -> FederatedState:
        return FederatedState(server.init(variables), aggregator.init(variables))

    def round(
        trip: Trips, key: Key, state: FederatedState, memory: PyTree, roster: Roster
    ) -> tuple[FederatedState, PyTree, Outcome]:
        message = partial(server.broadcast, state.server)
        back = trip(
            learner,
            aggregator,
            fold_in(key, TRIP),
            message,
            state.aggregator,
            memory,
            roster,
            epochs=epochs,
        )
        served = update(server, fold_in(key, UPDATE), state.server, back.upload, back.roster)
        return FederatedState(served, back.aggregator), back.memory, back.outcome

    def variables(state: FederatedState) -> Variables:
        return server.variables(state.server)

    def broadcast(state: FederatedState, member: Member) -> Message:
        return server.broadcast(state.server, member)

    return Algorithm(init, learner.init, round, variables, broadcast, learner.personal)


def update(server: Server, key: Key, state: PyTree, upload: Upload, roster: Roster) -> PyTree:
    """The server's update; an empty cohort leaves its state as it is."""
    return tree.where(roster.count > 0, server.update(key, state, upload, roster), state)
