"""Rejected rounds: the error that names the clients that caused it, and files to replay the round.

| in the run's folder | contents |
|---|---|
| ``nonfinite-<round>.json`` | the round and the clients; the argument of ``fedjax-sim replay`` |
| ``nonfinite-<round>/config.toml`` | the configuration of the run |
| ``nonfinite-<round>/<round - 1>`` | the state before the round, with the cohort's memory only |
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_sim.core import files
from fedjax_sim.core.errors import FedError, fail, require, sentence
from fedjax_sim.core.types import RoundState
from fedjax_sim.engine.rerun import Culprits
from fedjax_sim.persistence.checkpoint import Restored, open_store
from fedjax_sim.runtime.processes import is_main_process

MAX_NAMED = 5
"""Clients that an error message names; the file names all."""
CONFIG = "config.toml"


class NonFinite(FedError):
    """A round was rejected, because its result is not finite.

    The run stopped at the state before that round, which was saved.

    Args:
      round_: the rejected round, counted from 1.
      culprits: the clients that caused it.
      fix: what the user can do; by default what is true of any run.

    Attributes:
      round: the rejected round.
      culprits: the clients that caused it.
    """

    def __init__(self, round_: int, culprits: Culprits, fix: str = "") -> None:
        what = f"round {round_} was rejected, because its result was not finite"
        if culprits.clients:
            plural = "s" if len(culprits.clients) > 1 else ""
            got = f"client{plural} {client_list(culprits)} as the cause"
            default = (
                "fix their data or lower the learning rate, or drop them: guard.nonfinite = 'drop'"
            )
        else:
            what = f"{what}, although the result of every client was"
            got = "a reduction or a server update that overflowed"
            default = "lower the server's learning rate, or clip uploads"
        super().__init__(sentence(what, got=got, fix=fix or default))
        self.round = round_
        self.culprits = culprits


def client_list(culprits: Culprits) -> str:
    """Returns the first clients that caused a rejection as text, with their names if they have any.

    Example:

        >>> from fedjax_sim.engine.rerun import Culprits
        >>> from fedjax_sim.simulation.nonfinite_report import client_list
        >>> client_list(Culprits((3, 7), ("ada", ""), state=None))
        '3 (ada), 7'
    """
    names = culprits.names or ("",) * len(culprits.clients)
    texts = [
        f"{client} ({name})" if name else str(client)
        for client, name in zip(culprits.clients, names, strict=True)
    ]
    more = len(texts) - MAX_NAMED
    return ", ".join(texts[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def save(folder: Path, round_: int, culprits: Culprits, config: str) -> Path:
    """Writes the files of a rejected round into a run's folder.

    The files of an earlier rejection of the same round are replaced.

    Args:
      folder: the folder of the run.
      round_: the rejected round, counted from 1.
      culprits: the clients that caused it, and the state before the round.
      config: the configuration of the run, as TOML.

    Returns:
      The path of the JSON file.

    Raises:
      FedError: if a file cannot be written.
    """
    target = folder / f"nonfinite-{round_}"
    temporary = target.with_name(f".{target.name}.new")
    if is_main_process():
        files.remove(temporary)
    store = open_store(temporary)
    store.save(culprits.state, {})
    store.close()
    path = target.with_suffix(".json")
    if is_main_process():
        files.save(temporary / CONFIG, config)
        files.remove(target)
        with files.saving(target):
            os.replace(temporary, target)
        description = {"round": round_, "clients": _clients_json(culprits), "state": target.name}
        files.save(path, json.dumps(description, indent=2) + "\n")
    return path


def _clients_json(culprits: Culprits) -> list[dict[str, Any]]:
    names = culprits.names or (None,) * len(culprits.clients)
    return [
        {"id": client} | ({"name": name} if name else {})
        for client, name in zip(culprits.clients, names, strict=True)
    ]


class RejectedRound(NamedTuple):
    """The description of a rejected round, read from its file."""

    round: int
    """Counted from 1."""
    clients: tuple[int, ...]
    """Ids of the clients that caused it."""
    names: dict[int, str]
    """Names of these clients, by id, if they have any."""
    folder: Path
    """The folder of its configuration and state."""


def read(path: str | Path) -> RejectedRound:
    """Reads a file that :func:`save` wrote.

    Args:
      path: the JSON file. Its contents are not trusted: the folder of the state must lie beside it.

    Raises:
      FedError: if the file does not describe a rejected round, or its folder is missing.
    """
    path = Path(path)
    fix = "give a file nonfinite-<round>.json from the folder of a run"
    require(path.is_file(), "no file of a rejected round", got=str(path), fix=fix)
    try:
        rejected = _parse(path)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        fail("this file does not describe a rejected round", got=f"{path}: {error!r}", fix=fix)
    require(
        (rejected.folder / CONFIG).is_file(),
        "the state of the rejected round is missing",
        got=str(rejected.folder),
        fix="put that folder back beside the file",
    )
    return rejected


def _parse(path: Path) -> RejectedRound:
    description: dict[str, Any] = files.parse_json(path.read_text(encoding="utf-8"))
    clients = description["clients"]
    return RejectedRound(
        round=int(description["round"]),
        clients=tuple(int(client["id"]) for client in clients),
        names={int(client["id"]): str(client["name"]) for client in clients if "name" in client},
        folder=path.parent / _sibling_name(description["state"]),
    )


def _sibling_name(name: Any) -> str:
    """Checks that a name from a file names a folder beside that file, and nothing elsewhere."""
    if not isinstance(name, str) or "\0" in name or name in ("", "..") or Path(name).name != name:
        raise ValueError(f"state {name!r}")
    return name


def restore(rejected: RejectedRound, like: RoundState) -> Restored:
    """Loads the state before a rejected round.

    Args:
      rejected: from :func:`read`.
      like: a state, or its shapes; the memory has the cohort's rows only.

    Raises:
      FedError: if the checkpoint is damaged, or does not fit ``like``.
    """
    return open_store(rejected.folder).restore(like, rejected.round - 1)
