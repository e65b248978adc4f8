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

# Streams of the key of an algorithm's round. Algorithms with several trips continue the numbering.
TRIP = 0
UPDATE = 1


class FederatedState(NamedTuple):
    """State of the algorithms that :func:`federate` makes."""

    server: PyTree
    aggregator: PyTree


def federate(
    learner: Learner, aggregator: Aggregator, server: Server, epochs: int | None = None
) -> Algorithm:
    """Makes an algorithm of one trip: broadcast, learn, aggregate, update.

    Args:
      learner: the clients' part; it owns client memory and the local state.
      aggregator: the reduction of the uploads; exactly one of its stages must reduce.
      server: the owner of the global model.
      epochs: whole passes over each client's data, instead of the roster's local steps.

    Returns:
      The algorithm. Its state is a :class:`FederatedState`, its memory the learner's.

    Raises:
      FedError: if no stage of the aggregator reduces.

    Example:
      >>> import optax
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.clients.learner import gradient_learner
      >>> from fedjax_sim.servers.optimizer import optimizer_server
      >>> model = fs.from_functions(
      ...     lambda key, x: {"w": x[0] * 0}, lambda params, x: x @ params["w"]
      ... )
      >>> learner = gradient_learner(fs.regression(model), optax.sgd(0.1))
      >>> algorithm = fs.federate(learner, fs.aggregators.mean(), optimizer_server(optax.sgd(1.0)))
      >>> algorithm.init(fs.Variables({"w": 2.0})).server.variables.params
      {'w': 2.0}
    """
    require_reducer(aggregator)

    def init(variables: Variables) -> FederatedState:
        return FederatedState(server.init(variables), aggregator.init(variables))

    def round(
        trip: Trips, key: Key, state: FederatedState, memory: PyTree, roster: Roster
    ) -> tuple[FederatedState, PyTree, Outcome]:
        result = trip(
            learner,
            aggregator,
            fold_in(key, TRIP),
            partial(server.broadcast, state.server),
            state.aggregator,
            memory,
            roster,
            epochs=epochs,
        )
        updated = update(server, fold_in(key, UPDATE), state.server, result.upload, result.roster)
        return FederatedState(updated, result.aggregator), result.memory, result.outcome

    def variables(state: FederatedState) -> Variables:
        return server.variables(state.server)

    def broadcast(state: FederatedState, member: Member) -> Message:
        return server.broadcast(state.server, member)

    return Algorithm(init, learner.init, round, variables, broadcast, learner.personal)


def update(server: Server, key: Key, state: PyTree, upload: Upload, roster: Roster) -> PyTree:
    """Returns the server's state after an update; an empty cohort leaves it as it was.

    Args:
      server: the server.
      key: the key of the update.
      state: the server's state.
      upload: the reduced upload, from the trip.
      roster: the clients that took part in the trip, ``[C]`` in every leaf.
    """
    return tree.where(roster.count > 0, server.update(key, state, upload, roster), state)
