"""What a run may be resumed with: its own configuration, except for where and how long it runs and how it is watched."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from fedjax_sim.core.errors import fail
from fedjax_sim.experiments.config.load import tables

FREE = ("rounds", "engine", "guard", "evaluation", "checkpoint", "stop")
"""Keys and tables that do not decide what the rounds compute, as long as all goes well."""


def changed_rates(run: Any, before: dict[str, Any] | None) -> tuple[str, ...]:
    """Notes about learning rates that a resumed run has changed, the only settings of an algorithm that may.

    Args:
      run: the new configuration.
      before: that of the newest checkpoint, as it was stored with it; without one there is nothing to compare.

    Raises:
      FedError: for any other change, with the key and both values.
    """
    if before is None:
        return ()
    old, new = (dict(_flat(each)) for each in (_filled(type(run), before), tables(run)))
    notes = []
    for key in dict.fromkeys([*new, *old]):
        then, now = old.get(key, "nothing"), new.get(key, "nothing")
        if then == now or key.split(".")[0] in FREE:
            continue
        if not (_is_rate(key) and isinstance(then, float) and isinstance(now, float)):
            do = f"leave {key} as it was, or start a new run in another folder"
            fail(
                f"a resumed run keeps its {key}",
                got=f"{now!r} in place of {then!r}",
                fix=do,
                setting=key,
            )
        notes.append(f"resumed with {key} = {now}, which was {then}")
    return tuple(notes)


def _filled(model: Any, before: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration with what has become a setting since then, at its default."""
    try:
        return tables(model.model_validate(before))
    except ValidationError:
        return before


def _is_rate(key: str) -> bool:
    """Whether a dotted key is a learning rate of the algorithm itself."""
    section, _, name = key.partition(".")
    return section == "algorithm" and (name == "lr" or (name.endswith("_lr") and "." not in name))


def _flat(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """``(dotted key, scalar)`` for everything in nested tables and lists."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [
            pair
            for name, inner in items
            for pair in _flat(inner, f"{key}.{name}" if key else str(name))
        ]
    return [(key, value)]
