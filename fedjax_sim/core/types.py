"""The words of the simulator: five nouns made of pure functions, and the records that pass between them.

Shapes: ``N`` clients in the population, ``C`` rows in a cohort, ``B`` examples in a batch. ``params`` is any pytree.

Signs, said once: the *pseudo-gradient* is ``delta = x - y``, the server's parameters minus the client's. It points uphill,
so a server that does gradient descent on it with rate 1 replaces ``x`` by the average of the ``y``.

Absence, said once: a row of a roster whose ``id`` equals the population size is *absent*. Gather such rows with
``mode="clip"``, scatter them with ``mode="drop"``, and mask them with ``where`` (never with ``*``, for ``nan * 0`` is nan).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    # chex.dataclass in words that type checkers know.
    from typing import dataclass_transform

    @dataclass_transform(frozen_default=True)
    def state_class(cls: type) -> Any: ...  # noqa: D103
else:
    state_class = chex.dataclass(frozen=True, mappable_dataclass=False)

PyTree = Any
Key = jax.Array
Array = jax.Array


# ---------------------------------------------------------------------------------------------------------------- records


class Variables(NamedTuple):
    """What a model is made of: what is trained, and what is only carried along (batch statistics)."""

    params: PyTree
    state: PyTree = ()


class Batch(NamedTuple):
    """One local step's examples. Leaves of ``x`` and ``y`` are ``[B, ...]``; ``mask`` is ``bool[B]``, false on padding."""

    x: PyTree
    y: PyTree
    mask: Array


class Mean(NamedTuple):
    """A mean that can still be added to another one: ``total / weight``. Every metric is one of these until it is read."""

    total: Array
    weight: Array

    @property
    def value(self) -> Array:
        """The mean itself; 0 where nothing was weighed."""
        return jnp.where(
            self.weight > 0, self.total / jnp.where(self.weight > 0, self.weight, 1), 0.0
        )


Metrics = dict[str, Any]
"""Name to :class:`Mean` (added up over steps, clients and shards) or to a plain scalar (a fact of the whole round)."""


class Member(NamedTuple):
    """One client's part in one round. Scalars here; the engine vmaps over them."""

    id: Array
    """int32, the client's row in the population."""
    steps: Array
    """int32, local steps it will take (tau_i); 0 for an absent row."""
    size: Array
    """int32, its number of training examples (n_i); 0 for an absent row."""
    delay: Array
    """int32, how many rounds old its message is."""


class Roster(NamedTuple):
    """Who takes part in a round: a :class:`Member` with leading axis ``[C]``, and the size of the population."""

    id: Array
    steps: Array
    size: Array
    delay: Array
    population: Array
    """int32 scalar, N. Rows whose ``id`` is N are absent."""
    dropped: Any = None
    """bool[C], who was there until a guard sent it away in this round; ``None`` where there is none. See :mod:`fedjax_sim.engine.nonfinite`."""

    @property
    def present(self) -> Array:
        """bool[C]: a client is present when it exists and has something to do."""
        return (self.id < self.population) & (self.steps > 0)

    @property
    def count(self) -> Array:
        """int32 scalar, |S|: how many take part."""
        return jnp.sum(self.present, dtype=jnp.int32)

    @property
    def members(self) -> Member:
        """The rows alone, ``[C]`` in every leaf."""
        return Member(self.id, self.steps, self.size, self.delay)


class PopulationInfo(NamedTuple):
    """What a sampler may know of the population, ``int32[N]`` each: examples a client has, local steps it would take."""

    size: Array
    steps: Array


class Message(NamedTuple):
    """Server to client. ``params`` is the *anchor*: what the client starts from and measures its pseudo-gradient against."""

    params: PyTree
    state: PyTree = ()
    extra: PyTree = ()


class Upload(NamedTuple):
    """Client to server; after an aggregator, also the result of the reduction.

    Whatever the model's dtypes, aggregators see float32: a sum over clients in anything less loses them. The server gets ``delta``
    and ``state`` back in the dtypes of the message.
    """

    delta: PyTree
    """Pseudo-gradient of the parameters, anchor minus local."""
    state: PyTree = ()
    """The same difference for the model's state (batch statistics). Averaged like ``delta``, never clipped or compressed."""
    extra: PyTree = ()
    """Whatever else the algorithm sends. Averaged over present clients, all counting alike."""
    weight: Any = None
    """float32. The engine fills in the client's number of examples; after a sum, their total."""
    count: Any = None
    """float32, 1 for a present client; after a sum, |S|."""


# ------------------------------------------------------------------------------------------------------------------ nouns


class Objective(NamedTuple):
    """What is minimised on a client, and what is reported about a model."""

    loss: Callable[..., tuple[Array, tuple[PyTree, Metrics]]]
    """``(variables, key, batch, train) -> (loss, (state, metrics))``: mean loss over unmasked examples (regularisers included),
    the model's new state, and metrics as :class:`Mean`."""
    statistics: Literal["average", "frozen", "local"] = "average"
    """How batch statistics live: averaged by the server, fixed, or kept by each client (which takes an algorithm wrapped in
    :func:`fedjax_sim.clients.private_statistics`)."""


class Learner(NamedTuple):
    """Owner of the client's state. A step machine, so that the engine owns the loop."""

    init: Callable[[Variables], PyTree]
    """``variables -> memory``: what a client keeps between rounds, before its first one; ``()`` if nothing."""
    start: Callable[[Key, Message, PyTree], PyTree]
    """``(key, message, memory) -> local``: local state as the round begins."""
    step: Callable[[Key, Message, PyTree, PyTree, Batch], tuple[PyTree, Metrics]]
    """``(key, message, memory, local, batch) -> (local, metrics)``: ONE local step."""
    finish: Callable[[Key, Message, PyTree, PyTree], tuple[Upload, PyTree, Metrics]]
    """``(key, message, memory, local) -> (upload, memory, metrics)``: what goes up, what stays."""
    personal: Callable[[Message, PyTree], Variables]
    """``(message, memory) -> variables``: what this client would predict with. The broadcast model unless personalised."""


class Aggregator(NamedTuple):
    """Owner of the reduction. Stages compose with :func:`fedjax_sim.aggregators.chain`; exactly one of them reduces."""

    init: Callable[[Variables], PyTree]
    """``variables -> state``."""
    lift: Callable[[Key, PyTree, Upload], tuple[Upload, PyTree]]
    """``(key, state, upload) -> (upload, stats)``: on each client, before the reduction. ``stats`` are summed over clients."""
    finalize: Callable[[Key, PyTree, Upload, PyTree], tuple[Upload, PyTree, Metrics]]
    """``(key, state, upload, stats) -> (upload, state, metrics)``: once, on what the reduction left."""
    reduce: Literal["sum", "stack"] | None = None
    """``"sum"``: finalize sees one upload, the sum. ``"stack"``: it sees ``[C, ...]`` in roster order, absent rows with
    ``count == 0`` and zeros. ``None``: this stage does not reduce and must be chained with one that does."""


class Server(NamedTuple):
    """Owner of the model."""

    init: Callable[[Variables], PyTree]
    """``variables -> state``."""
    broadcast: Callable[[PyTree, Member], Message]
    """``(state, member) -> message``. May be personal, or stale; what does not depend on the member is not copied per client."""
    update: Callable[[Key, PyTree, Upload, Roster], PyTree]
    """``(key, state, upload, roster) -> state``. What it makes of an empty cohort is thrown away."""
    variables: Callable[[PyTree], Variables]
    """``state -> variables``: what evaluation and export call "the model"."""


class Sampler(NamedTuple):
    """Owner of the clock: who takes part, how late, for how many steps."""

    cohort: Callable[[int], int]
    """``population size -> C``, static: rows in every roster (the maximum, where the number varies)."""
    init: Callable[[PopulationInfo], PyTree]
    """``info -> state``. Traced, as all of these functions are."""
    sample: Callable[[Key, PyTree, PopulationInfo, Array], tuple[Roster, PyTree]]
    """``(key, state, info, round) -> (roster, state)``. Steps beyond the local work count as the local work."""
    observe: Callable[[PyTree, Roster, Metrics], PyTree]
    """``(state, roster, client_metrics) -> state``; metrics are ``[C]`` in every leaf. Loss-aware selection lives here."""


class Outcome(NamedTuple):
    """What a round or a trip reports."""

    metrics: Metrics
    """Over the whole cohort: :class:`Mean` summed over present clients, and plain scalars from the aggregator."""
    clients: Metrics
    """Per client: :class:`Mean` with leaves ``[C]`` in roster order; weight 0 where absent."""


class Trip(NamedTuple):
    """What one trip (broadcast, learn, lift, reduce, finalize) brings back."""

    upload: Upload
    aggregator: PyTree
    memory: PyTree
    outcome: Outcome
    roster: Roster
    """Who is still there. What comes after the trip - the next one, the server - is about them."""


class Algorithm(NamedTuple):
    """What everything else consumes. :func:`fedjax_sim.engine.round` makes one of a learner, an aggregator and a server."""

    init: Callable[[Variables], PyTree]
    """``variables -> state``: all that the algorithm keeps on the server's side."""
    memory: Callable[[Variables], PyTree]
    """``variables -> memory``: one client's row of the memory table; ``()`` if clients keep nothing."""
    round: Callable[..., tuple[PyTree, PyTree, Outcome]]
    """``(trip, key, state, memory, roster) -> (state, memory, outcome)``."""
    variables: Callable[[PyTree], Variables]
    """``state -> variables``: the global model."""
    broadcast: Callable[[PyTree, Member], Message]
    """``(state, member) -> message``: what a client would be sent at the begin of a round."""
    personal: Callable[[Message, PyTree], Variables]
    """``(message, memory) -> variables``: the model one client would use."""


@state_class
class RoundState:
    """Everything that survives a round, and nothing else. A run is ``state -> state``; a checkpoint is one of these."""

    round: Array
    """int32, rounds completed."""
    seed: Array
    """uint32. Every key of the run is derived from it, by round, client and step; none is stored."""
    algorithm: PyTree
    """The algorithm's own state: model, optimizer, control variates."""
    memory: PyTree
    """What clients remember, ``[N, ...]`` in every leaf."""
    sampler: PyTree
    """The sampler's state."""


class Law(NamedTuple):
    """How an algorithm proves itself: with these settings it is that algorithm. Shipped beside the algorithm."""

    says: str
    """The law in words, for the documentation table."""
    when: dict[str, Any] = {}
    """Settings of this algorithm."""
    equals: str = "fedavg"
    """Name of the algorithm it then equals."""
    given: dict[str, Any] = {}
    """Settings of that other algorithm."""
    local_work: dict[str, Any] = {}
    """Local work for both, where the law needs a special one (``{"batch_size": None, "epochs": 1}``)."""
    rounds: int = 3
    """How many rounds the law holds for."""
    tolerance: float = 1e-5
    """Relative tolerance; 0 demands the same bits."""
    conserved: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]] | None = None
    """``(algorithm state, memory table [N, ...]) -> (a, b)``, equal after every round."""
