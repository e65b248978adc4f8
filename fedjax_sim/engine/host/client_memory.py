"""Client memory that stays on the host: the rows of a round's clients are lent to the devices, and put away behind the next round.

The state of such a program has no memory of its own: the vault is where it is, and a vault is at one round at a time. Checkpoints hold a
description of the vault's snapshot in its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.errors import FedError, fail, require
from fedjax_sim.core.types import Outcome, PyTree, RoundState
from fedjax_sim.engine.devices.backends import Backend
from fedjax_sim.engine.host.examples import CohortLoader, LoadedCohort, SampledCohort
from fedjax_sim.engine.host.rows import Description, Pipeline, Vault, open_pipeline, open_vault
from fedjax_sim.engine.nonfinite import NonFinitePolicy
from fedjax_sim.engine.plan import Plan


class HostMemory(NamedTuple):
    """A program's client memory on the host. Made by :func:`make_host_memory`."""

    use: Callable[[str | Path], None]
    """``folder -> None``: where it is kept; a temporary folder otherwise. To be called before a first state is made."""
    begin: Callable[[PyTree], None]
    """``row -> None``: nobody remembers more than this row, that of a client before its first round."""
    fetch: Callable[[RoundState, SampledCohort], PyTree]
    """``(state, order) -> memory``: the rows of the clients of the round after this state, on the devices."""
    prefetch: Callable[[SampledCohort | None], None]
    """``next order -> None``: whose rows are wanted next, if known, while a round has begun; reading them need not wait for it."""
    store: Callable[[SampledCohort, PyTree], None]
    """``(order, memory) -> None``: what a round that has begun will leave."""
    cancel: Callable[[], None]
    """``() -> None``: the round that rows were lent to did not come about."""
    fetch_to_devices: Callable[[Any], PyTree]
    """``ids int64[D * k] -> memory``: their rows, up to date, on the devices in turn, to be looked at."""
    read: Callable[[Any], PyTree]
    """``ids int64[k] -> memory [k, ...]``: the same, on the host."""
    snapshot: Callable[[], Description]
    """``() -> description`` of what everybody remembers now, safe on disk; to be kept with the checkpoint of this round."""
    restore: Callable[[Description], None]
    """``description -> None``: everybody remembers what they did then."""
    retain: Callable[[Iterable[int]], None]
    """``rounds -> None``: snapshots of other rounds are dropped."""


@dataclasses.dataclass
class _Shelf:
    """The one mutable thing here."""

    plan: Plan
    backend: Backend
    clients: int
    folder: Path | None = None
    """Where it was asked to be."""
    vault: Vault | None = None
    pipeline: Pipeline | None = None
    held: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)
    """Lets go of all that is open."""
    round: int = 0
    """Rounds whose results are in the vault or on their way there."""
    asked: np.ndarray | None = None
    """The clients whose rows are being read ahead."""


def make_host_memory(plan: Plan, backend: Backend, clients: int) -> HostMemory:
    """Memory of so many clients (N), for a program on these devices."""
    require(
        len(plan.local_devices) == len(plan.devices),
        "client memory on the host needs a single process",
        got="several",
        fix="use engine.client_memory = 'device'",
    )
    shelf = _Shelf(plan, backend, clients)
    weakref.finalize(shelf, shelf.held.close)
    actions: tuple[Any, ...] = (
        _use,
        _begin,
        _lend,
        _expect,
        _put_away,
        _forget,
        _show,
        _read,
        _snapshot,
        _restore,
        _retain,
    )
    return HostMemory(*(partial(action, shelf) for action in actions))


def _use(shelf: _Shelf, folder: str | Path) -> None:
    _shut(shelf)
    shelf.folder = Path(folder)


def _begin(shelf: _Shelf, row: PyTree) -> None:
    _shut(shelf)
    folder = shelf.folder
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="fedjax_sim-memory-"))
        shelf.held.callback(shutil.rmtree, folder, ignore_errors=True)
    shelf.vault = open_vault(folder, row, shelf.clients) if jax.tree.leaves(row) else _empty(row)
    shelf.held.callback(shelf.vault.close)
    _fresh(shelf, 0)


def _lend(shelf: _Shelf, state: RoundState, order: SampledCohort) -> PyTree:
    at, ids = int(np.asarray(state.round)), clients_in_shard_order(order)
    do = "go on from the state of that round, or restore a checkpoint of this one"
    require(
        at == shelf.round,
        "what clients remember belongs to another round",
        got=f"that of round {shelf.round} for a state of round {at}",
        fix=do,
    )
    if shelf.asked is not None and not np.array_equal(shelf.asked, ids):
        _fresh(shelf, at)
    pipeline = _line(shelf)
    if shelf.asked is None:
        pipeline.prefetch(ids)
    shelf.asked = None
    return _deal(shelf, pipeline.take())


def _expect(shelf: _Shelf, following: SampledCohort | None) -> None:
    if following is not None:
        shelf.asked = clients_in_shard_order(following)
        _line(shelf).prefetch(shelf.asked)


def _put_away(shelf: _Shelf, order: SampledCohort, memory: PyTree) -> None:
    pipeline, per_device = _line(shelf), shelf.plan.backend == "pmap"
    pipeline.deliver(
        clients_in_shard_order(order),
        jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), memory)
        if per_device
        else memory,
    )
    shelf.round += 1


def _forget(shelf: _Shelf) -> None:
    _fresh(shelf, shelf.round)


def _show(shelf: _Shelf, ids: Any) -> PyTree:
    return _deal(shelf, _read(shelf, ids))


def _read(shelf: _Shelf, ids: Any) -> PyTree:
    _line(shelf).wait()
    return _open(shelf).read(ids)


def _deal(shelf: _Shelf, rows: PyTree) -> PyTree:
    """Rows on the devices, in blocks of equal size."""
    leaves, structure = jax.tree.flatten(rows)
    if not leaves:
        return rows
    blocks = zip(
        *(np.split(np.ascontiguousarray(leaf), shelf.plan.replicas) for leaf in leaves), strict=True
    )
    return shelf.backend.deal(
        [jax.tree.unflatten(structure, block) for block in blocks], memory=True
    )


def _snapshot(shelf: _Shelf) -> Description:
    _line(shelf).wait()
    return _open(shelf).snapshot(shelf.round)


def _restore(shelf: _Shelf, description: Description) -> None:
    formed = isinstance(description, dict) and isinstance(description.get("round"), int)
    require(
        formed,
        "this does not describe what clients remembered",
        got=description,
        fix="go back to another checkpoint",
    )
    _open(shelf).restore(description)
    _fresh(shelf, int(description["round"]))


def _retain(shelf: _Shelf, rounds: Iterable[int]) -> None:
    _open(shelf).keep(rounds)


def run_with_host_memory(
    keeping: HostMemory,
    supplier: CohortLoader,
    guard: NonFinitePolicy,
    advance: Callable,
    state: RoundState,
    parcel: LoadedCohort,
) -> tuple[RoundState, Outcome]:
    """A round whose clients' memory the host lends, and puts away behind the next, unless the round is refused."""
    at, memory = int(np.asarray(state.round)), keeping.fetch(state, parcel.cohort)
    try:
        after, outcome = advance(dataclasses.replace(state, memory=memory), parcel.inputs)
    except BaseException:
        keeping.cancel()
        raise
    supplier.prepare(after)
    keeping.prefetch(parcel.following)
    if (
        guard.can_reject and int(np.asarray(after.round)) == at
    ):  # which takes until the round is over
        keeping.cancel()
    else:
        keeping.store(parcel.cohort, after.memory)
    return dataclasses.replace(after, memory=()), outcome


def clients_in_shard_order(order: SampledCohort) -> np.ndarray:
    """int64[S * Q], the client of each place in the shards, device by device; N where nobody takes part."""
    places = np.minimum(order.places.reshape(-1), len(order.roster.id) - 1)
    here = (order.places.reshape(-1) < len(order.roster.id)) & (order.roster.steps[places] > 0)
    return np.where(here, order.roster.id[places], order.roster.population).astype(np.int64)


def _empty(row: PyTree) -> Vault:
    """For clients who remember nothing."""
    return Vault(
        lambda ids: row, _ignore, lambda round: {"round": round}, _ignore, _ignore, _ignore, dict
    )


def _ignore(*arguments: Any) -> None:
    """Does nothing."""


def _fresh(shelf: _Shelf, round: int) -> None:
    """A pipeline with nothing under way."""
    if shelf.pipeline is not None:
        _end(shelf.pipeline)
    shelf.pipeline, shelf.round, shelf.asked = (
        open_pipeline(_open(shelf), shelf.clients),
        round,
        None,
    )
    shelf.held.callback(_end, shelf.pipeline)


def _shut(shelf: _Shelf) -> None:
    shelf.held.close()
    shelf.pipeline = shelf.vault = None


def _end(pipeline: Pipeline) -> None:
    with contextlib.suppress(FedError):  # about rows that nobody wants any more
        pipeline.close()


def _open(shelf: _Shelf) -> Vault:
    return shelf.vault if shelf.vault is not None else _unmade()


def _line(shelf: _Shelf) -> Pipeline:
    return shelf.pipeline if shelf.pipeline is not None else _unmade()


def _unmade() -> Any:
    fail(
        "nobody's memory has begun",
        got="no first state of this program",
        fix="call program.init first, also before going on from a checkpoint",
    )
