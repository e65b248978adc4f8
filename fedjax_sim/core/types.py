"""The simulator's five nouns, made of pure functions, and the records that pass between them.

Shapes: ``N`` clients in the population, ``C`` rows in a cohort, ``B`` examples in a batch.
``params`` is any pytree of arrays.

Sign: the *pseudo-gradient* is ``delta = x - y``, the server's parameters minus the client's. It is
an ascent direction, so a server that takes a gradient descent step on it with rate 1 replaces ``x``
by the average of the ``y``.

Absent rows: a row of a roster whose ``id`` equals the population size N is *absent*. Gather such
rows with ``mode="clip"``, scatter them with ``mode="drop"``, and mask them with ``where``, never by
multiplication (``nan * 0`` is nan).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    # chex.dataclass, in a form that type checkers understand.
    from typing import dataclass_transform

    @dataclass_transform(frozen_default=True)
    def state_class(cls: type) -> Any: ...  # noqa: D103
else:
    state_class = chex.dataclass(frozen=True, mappable_dataclass=False)

PyTree = Any
Key = jax.Array
Array = jax.Array


# ------------------------------------------------------------------------------------------ records


class Variables(NamedTuple):
    """A model's arrays.

    Attributes:
      params: what is trained, any pytree.
      state: what the model updates itself without gradients, such as batch statistics; ``()`` if
        there is none.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> fs.Variables({"w": jnp.zeros(2)})
      Variables(params={'w': Array([0., 0.], dtype=float32)}, state=())
    """

    params: PyTree
    state: PyTree = ()


class Batch(NamedTuple):
    """The examples of one local step.

    Attributes:
      x: inputs, ``[B, ...]`` in every leaf.
      y: targets, ``[B, ...]`` in every leaf.
      mask: ``bool[B]``, false on padding.
    """

    x: PyTree
    y: PyTree
    mask: Array


class Mean(NamedTuple):
    """A mean in two parts, so that means can be combined by adding the parts.

    Metrics stay in this form while they are summed over steps, clients and shards; ``value`` is
    computed at the end.

    Attributes:
      total: weighted sum of the values, float32.
      weight: sum of the weights, float32, same shape as ``total``.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> float(fs.Mean(total=jnp.float32(6), weight=jnp.float32(4)).value)
      1.5
    """

    total: Array
    weight: Array

    @property
    def value(self) -> Array:
        """The mean itself, ``total / weight``; 0 where the weight is 0."""
        return jnp.where(
            self.weight > 0, self.total / jnp.where(self.weight > 0, self.weight, 1), 0.0
        )


Metrics = dict[str, Any]
"""Name to :class:`Mean` (summed over steps, clients, shards) or to a scalar of the whole round."""


class Member(NamedTuple):
    """One client's part in one round. The fields are scalars; the engine vmaps over clients.

    Attributes:
      id: int32, the client's row in the population, ``0..N-1``; N for an absent row.
      steps: int32, number of local steps it takes (tau_i); 0 for an absent row.
      size: int32, number of its training examples (n_i); 0 for an absent row.
      delay: int32, age of its message in rounds.
    """

    id: Array
    steps: Array
    size: Array
    delay: Array


class Roster(NamedTuple):
    """The rows of a round: one :class:`Member` per row, and the population size.

    Attributes:
      id: ``int32[C]``, rows in the population; N where absent.
      steps: ``int32[C]``, local steps; 0 where absent.
      size: ``int32[C]``, training examples; 0 where absent.
      delay: ``int32[C]``, age of the message in rounds.
      population: int32 scalar, N.
      dropped: ``bool[C]``, true for clients that the policy for non-finite results has dropped in
        this round (see :mod:`fedjax_sim.engine.nonfinite`); None without such a policy.

    Example:
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> ids = jnp.array([4, 1, 6])  # of 6 clients: the last row is absent
      >>> roster = fs.Roster(ids, jnp.array([2, 1, 0]), jnp.array([8, 3, 0]), jnp.zeros(3), 6)
      >>> roster.present.tolist(), int(roster.count)
      ([True, True, False], 2)
    """

    id: Array
    steps: Array
    size: Array
    delay: Array
    population: Array
    dropped: Any = None

    @property
    def present(self) -> Array:
        """``bool[C]``: true for a row whose client exists and has at least one local step."""
        return (self.id < self.population) & (self.steps > 0)

    @property
    def count(self) -> Array:
        """int32 scalar, |S|: the number of present rows."""
        return jnp.sum(self.present, dtype=jnp.int32)

    @property
    def members(self) -> Member:
        """The rows as a :class:`Member`, ``[C]`` in every leaf."""
        return Member(self.id, self.steps, self.size, self.delay)


class PopulationInfo(NamedTuple):
    """The part of the population that a sampler can read.

    Attributes:
      size: ``int32[N]``, training examples of each client.
      steps: ``int32[N]``, local steps that each client would take in a round.
    """

    size: Array
    steps: Array


class Message(NamedTuple):
    """What the server sends to a client.

    Attributes:
      params: the *anchor* x: the client starts from it, and its pseudo-gradient is relative to it.
      state: the model's state, such as batch statistics.
      extra: anything else that the algorithm sends, such as a control variate; any pytree.
    """

    params: PyTree
    state: PyTree = ()
    extra: PyTree = ()


class Upload(NamedTuple):
    """What a client sends to the server; after the reduction, what the server's update receives.

    Aggregators receive float32 arrays whatever the model's dtypes, because a sum over clients in a
    narrower dtype loses precision. The server receives ``delta`` and ``state`` in the dtypes of the
    message.

    Attributes:
      delta: pseudo-gradient of the parameters, ``x - y``, like ``Message.params``.
      state: the same difference of the model's state. It is averaged like ``delta``, but never
        clipped or compressed.
      extra: anything else that the algorithm sends, any pytree. It is averaged over present clients
        with equal weights.
      weight: float32; the engine fills in the client's number of examples. After a sum, the total.
      count: float32; the engine fills in 1 for a present client. After a sum, |S|.
    """

    delta: PyTree
    state: PyTree = ()
    extra: PyTree = ()
    weight: Any = None
    count: Any = None


# -------------------------------------------------------------------------------------------- nouns


class Objective(NamedTuple):
    """The function that clients minimise, and the metrics of a model.

    Attributes:
      loss: ``(variables, key, batch, train) -> (loss, (state, metrics))``. ``loss`` is a scalar,
        the mean over unmasked examples, regularisers included; ``state`` is the model's new state;
        ``metrics`` maps names to :class:`Mean`. ``train`` is a Python bool.
      statistics: policy for batch statistics. ``"average"``: the server averages them.
        ``"frozen"``: they keep their initial values. ``"local"``: each client keeps its own, which
        needs an algorithm wrapped in :func:`fedjax_sim.clients.private_statistics`.
      lower_is_better: names of the metrics whose lowest value is the best one. The statistics over
        clients report the worst clients accordingly.
    """

    loss: Callable[..., tuple[Array, tuple[PyTree, Metrics]]]
    statistics: Literal["average", "frozen", "local"] = "average"
    lower_is_better: tuple[str, ...] = ("loss",)


class Learner(NamedTuple):
    """Owner of the client's state: a step machine, so that the engine owns the loop over steps.

    ``memory`` is what one client keeps between rounds, ``local`` is its state within a round; both
    are any pytree. The engine calls ``start`` once, ``step`` for each batch and ``finish`` once,
    for each client of the cohort.

    Attributes:
      init: ``variables -> memory``: a client's memory before its first round; ``()`` if it keeps
        nothing.
      start: ``(key, message, memory) -> local``: local state at the start of a round.
      step: ``(key, message, memory, local, batch) -> (local, metrics)``: one local step.
      finish: ``(key, message, memory, local) -> (upload, memory, metrics)``: what the client sends,
        and its memory for its next round.
      personal: ``(message, memory) -> variables``: the model that this client predicts with: the
        broadcast model, unless the learner personalises it.
    """

    init: Callable[[Variables], PyTree]
    start: Callable[[Key, Message, PyTree], PyTree]
    step: Callable[[Key, Message, PyTree, PyTree, Batch], tuple[PyTree, Metrics]]
    finish: Callable[[Key, Message, PyTree, PyTree], tuple[Upload, PyTree, Metrics]]
    personal: Callable[[Message, PyTree], Variables]


class Aggregator(NamedTuple):
    """Owner of the reduction: how uploads are combined.

    :func:`fedjax_sim.aggregators.chain` makes one aggregator of several stages, of which exactly
    one reduces.

    Attributes:
      init: ``variables -> state``: the aggregator's state before the first round.
      lift: ``(key, state, upload) -> (upload, stats)``: runs for each client, before the reduction.
        ``stats`` is any pytree of arrays; it is summed over present clients.
      finalize: ``(key, state, upload, stats) -> (upload, state, metrics)``: runs once, on the
        reduced upload and the summed stats.
      reduce: ``"sum"``: ``finalize`` receives one upload, the sum over present clients.
        ``"stack"``: it receives ``[C, ...]`` in every leaf, in roster order; absent rows are zeros
        with ``count == 0``. None: this stage does not reduce, and must be chained with one that
        does.
    """

    init: Callable[[Variables], PyTree]
    lift: Callable[[Key, PyTree, Upload], tuple[Upload, PyTree]]
    finalize: Callable[[Key, PyTree, Upload, PyTree], tuple[Upload, PyTree, Metrics]]
    reduce: Literal["sum", "stack"] | None = None


class Server(NamedTuple):
    """Owner of the global model.

    Attributes:
      init: ``variables -> state``: the server's state before the first round.
      broadcast: ``(state, member) -> message``: what this client receives; it may differ between
        clients, or be an older model. Parts that do not depend on the member are not copied for
        each client.
      update: ``(key, state, upload, roster) -> state``: one server step on the reduced upload. The
        result is ignored when the cohort is empty.
      variables: ``state -> variables``: the model that is evaluated and exported.
    """

    init: Callable[[Variables], PyTree]
    broadcast: Callable[[PyTree, Member], Message]
    update: Callable[[Key, PyTree, Upload, Roster], PyTree]
    variables: Callable[[PyTree], Variables]


class Sampler(NamedTuple):
    """Owner of participation: which clients take part, with what delay, for how many steps.

    All functions but ``cohort`` are traced: they run inside the jitted round.

    Attributes:
      cohort: ``population size -> C``, static: rows of every roster (the maximum, if the number of
        clients varies).
      init: ``info -> state``: the sampler's state before the first round.
      sample: ``(key, state, info, round) -> (roster, state)``. Steps above those of the local work
        are reduced to it.
      observe: ``(state, roster, metrics) -> state``: reads the clients' metrics, ``[C]`` in every
        leaf, after the round. A selection by loss keeps the losses here.
    """

    cohort: Callable[[int], int]
    init: Callable[[PopulationInfo], PyTree]
    sample: Callable[[Key, PyTree, PopulationInfo, Array], tuple[Roster, PyTree]]
    observe: Callable[[PyTree, Roster, Metrics], PyTree]


class Outcome(NamedTuple):
    """The metrics of a round or a trip.

    Attributes:
      metrics: of the whole cohort: :class:`Mean` summed over present clients, and scalars from the
        aggregator.
      clients: per client: :class:`Mean` with leaves ``[C]`` in roster order; weight 0 where absent.
    """

    metrics: Metrics
    clients: Metrics


class Trip(NamedTuple):
    """The result of one trip: broadcast, local steps, lift, reduce, finalize.

    Attributes:
      upload: the reduced upload.
      aggregator: the aggregator's new state.
      memory: client memory with the cohort's rows replaced.
      outcome: the trip's metrics.
      roster: the rows that are still present; later trips and the server's update must use it.
    """

    upload: Upload
    aggregator: PyTree
    memory: PyTree
    outcome: Outcome
    roster: Roster


class Algorithm(NamedTuple):
    """A federated algorithm, as the engine, evaluation and configuration use it.

    :func:`fedjax_sim.federate` makes one of a learner, an aggregator and a server. An algorithm
    with several trips per round writes its own ``round``.

    Attributes:
      init: ``variables -> state``: everything that the server side keeps between rounds.
      memory: ``variables -> memory``: the initial memory of one client; ``()`` if clients keep
        nothing.
      round: ``(trip, key, state, memory, roster) -> (state, memory, outcome)``: one round. ``trip``
        is the engine's function that runs the cohort's local work.
      variables: ``state -> variables``: the global model.
      broadcast: ``(state, member) -> message``: what a client receives at the start of a round.
      personal: ``(message, memory) -> variables``: the model that one client predicts with.
    """

    init: Callable[[Variables], PyTree]
    memory: Callable[[Variables], PyTree]
    round: Callable[..., tuple[PyTree, PyTree, Outcome]]
    variables: Callable[[PyTree], Variables]
    broadcast: Callable[[PyTree, Member], Message]
    personal: Callable[[Message, PyTree], Variables]


@state_class
class RoundState:
    """Everything that survives a round. A run maps state to state; a checkpoint stores one state.

    Attributes:
      round: int32, number of completed rounds.
      seed: uint32. Every random key is derived from it, the round, the client and the step; no key
        is stored.
      algorithm: the algorithm's state: model, optimizer, control variates.
      memory: client memory, ``[N, ...]`` in every leaf.
      sampler: the sampler's state.
    """

    round: Array
    seed: Array
    algorithm: PyTree
    memory: PyTree
    sampler: PyTree
