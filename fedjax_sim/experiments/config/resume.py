"""What a run may be resumed with: its own configuration, except for where and how long it runs and
how it is watched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import fail
from fedjax_sim.experiments.config.fields import Settings
from fedjax_sim.experiments.config.load import tables
from fedjax_sim.experiments.config.renamed import translated


def changed_settings(run: Settings, before: dict[str, Any] | None) -> tuple[str, ...]:
    """Compares a configuration with that of the run so far.

    Sections and settings that carry ``MAY_CHANGE_ON_RESUME`` may differ. A setting of an
    algorithm, such as a learning rate, may only become another number, since the state of the run
    has its structure.

    Args:
      run: the new configuration.
      before: that of the newest checkpoint, as it was stored with it; without one there is nothing
        to compare.

    Returns:
      A note for each setting of the algorithm that has changed.

    Raises:
      FedError: for any other change, with the key and both values.
    """
    if before is None:
        return ()
    sections = {name for name in type(run).model_fields if _may_change(run, name)}
    rates = set(_changeable(run))
    old = dict(_flat(_filled(type(run), translated(before))))
    new = dict(_flat(tables(run)))
    notes = []
    for key in dict.fromkeys([*new, *old]):
        then = old.get(key, "nothing")
        now = new.get(key, "nothing")
        if then == now or key.split(".")[0] in sections:
            continue
        if not (key in rates and isinstance(then, float) and isinstance(now, float)):
            fail(
                f"a resumed run keeps its {key}",
                got=f"{now!r} in place of {then!r}",
                fix=f"leave {key} as it was, or start a new run in another folder",
                setting=key,
            )
        notes.append(f"resumed with {key} = {now}, which was {then}")
    return tuple(notes)


def _may_change(settings: Settings, name: str) -> bool:
    return MAY_CHANGE_ON_RESUME in type(settings).model_fields[name].metadata


def _changeable(settings: Settings, prefix: str = "") -> Iterator[str]:
    """Dotted keys of the settings in nested tables that may change."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _changeable(value, f"{prefix}{name}.")
        elif _may_change(settings, name):
            yield f"{prefix}{name}"


def _filled(model: type[Settings], before: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration with settings that were added since then, at their defaults."""
    try:
        return tables(model.model_validate(before))
    except ValidationError:
        return before


def _flat(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """``(dotted key, scalar)`` for everything in nested tables and lists."""
    if not isinstance(value, dict | list):
        return [(key, value)]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    inner = [(f"{key}.{name}" if key else str(name), item) for name, item in items]
    return [pair for name, item in inner for pair in _flat(item, name)]
