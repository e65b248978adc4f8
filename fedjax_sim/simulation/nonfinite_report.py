"""A round that was refused: the error that says so, and the files from which it can be looked at again.

| in the run's folder | holds |
|---|---|
| ``nonfinite-<round>.json`` | the round and who is to blame; what ``fedjax-sim replay`` is given |
| ``nonfinite-<round>/config.toml`` | the configuration then |
| ``nonfinite-<round>/<round - 1>`` | the state before it, with the memory of its cohort alone, as a checkpoint |
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

SHOWN = 5
"""Clients that a sentence names; the file names all."""
CONFIG = "config.toml"


class NonFinite(FedError):
    """A guard refused a round. The run stopped at the state before it, which was saved."""

    def __init__(self, round_: int, culprits: Culprits, do: str = "") -> None:
        """``round_`` counts from 1; ``do`` says what to do, where there is more than can be said of any run."""
        who = "clients" if len(culprits.clients) > 1 else "client"
        what = f"round {round_} was refused, for it left something that is not finite{'' if culprits.clients else ' though no client did'}"
        got = (
            f"{who} {named(culprits)} to blame"
            if culprits.clients
            else "a reduction or a server's step that overflows"
        )
        mend = "mend their data or lower the learning rate, or drop them: guard.nonfinite = 'drop'"
        super().__init__(
            sentence(
                what,
                got=got,
                fix=do
                or (
                    mend
                    if culprits.clients
                    else "lower the server's learning rate, or clip uploads"
                ),
            )
        )
        self.round, self.culprits = round_, culprits


def named(culprits: Culprits) -> str:
    """The clients to blame in words."""
    names = culprits.names or ("",) * len(culprits.clients)
    words = [
        f"{i} ({name})" if name else str(i) for i, name in zip(culprits.clients, names, strict=True)
    ][:SHOWN]
    more = len(culprits.clients) - len(words)
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def save(folder: Path, round_: int, culprits: Culprits, config: str) -> Path:
    """Writes the files of a refused round into a run's folder; those of an earlier attempt at it are replaced.

    Args:
      folder: the run's.
      round_: from 1.
      culprits: who, and the state.
      config: the configuration, as TOML.

    Returns:
      The path of the JSON file.

    Raises:
      FedError: where they cannot be written.
    """
    place = folder / f"nonfinite-{round_}"
    fresh = place.with_name(f".{place.name}.new")
    if is_main_process():
        files.remove(fresh)
    store = open_store(fresh)
    store.save(culprits.state, {})
    store.close()
    path, names = place.with_suffix(".json"), culprits.names or (None,) * len(culprits.clients)
    clients = [
        {"id": i} | ({"name": name} if name else {})
        for i, name in zip(culprits.clients, names, strict=True)
    ]
    if is_main_process():
        files.save(fresh / CONFIG, config)
        files.remove(place)
        with files.saving(place):
            os.replace(fresh, place)
        files.save(
            path,
            json.dumps({"round": round_, "clients": clients, "state": place.name}, indent=2) + "\n",
        )
    return path


class Incident(NamedTuple):
    """A refused round, from its file."""

    round: int
    clients: tuple[int, ...]
    names: dict[int, str]
    folder: Path
    """Of its configuration and state."""


def read(path: str | Path) -> Incident:
    """What :func:`save` wrote.

    Raises:
      FedError: where that is not what the file is.
    """
    path, do = Path(path), "give a file nonfinite-<round>.json from the folder of a run"
    require(path.is_file(), "no file of a refused round", got=str(path), fix=do)
    try:
        held: dict[str, Any] = files.parse_json(path.read_text(encoding="utf-8"))
        clients = tuple(int(client["id"]) for client in held["clients"])
        names = {
            int(client["id"]): str(client["name"]) for client in held["clients"] if "name" in client
        }
        incident = Incident(
            int(held["round"]), clients, names, path.parent / _beside(held["state"])
        )
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        fail("this file does not describe a refused round", got=f"{path}: {error!r}", fix=do)
    what = "the state of the refused round is gone"
    require(
        (incident.folder / CONFIG).is_file(),
        what,
        got=str(incident.folder),
        fix="bring that folder back beside the file",
    )
    return incident


def _beside(name: Any) -> str:
    """The name of a folder beside the file, whoever wrote it."""
    if not isinstance(name, str) or "\0" in name or name in ("", "..") or Path(name).name != name:
        raise ValueError(f"state {name!r}")
    return name


def restore(incident: Incident, like: RoundState) -> Restored:
    """The state before the round; ``like`` has its shapes."""
    return open_store(incident.folder).restore(like, incident.round - 1)
