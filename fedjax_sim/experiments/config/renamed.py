"""Keys and entries that had other names in earlier versions.

A file that a user writes with an old name is refused with a sentence that gives the new one. The
configuration in a run's folder was written by this package, so it is translated, and runs of
earlier versions continue.
"""

from __future__ import annotations

from typing import Any

KEYS = {
    "local": "local_work",
    "engine.keep": "engine.client_memory",
    "engine.memory": "engine.memory_limit",
    "engine.model": "engine.devices_per_client",
    "task.central_fraction": "task.global_test_fraction",
}
"""Old dotted key to the new one."""

ENTRIES = {
    "algorithm.aggregator": {"uniform": "unweighted_mean", "total": "scaled_sum"},
}
"""Dotted key of a table, or of a list of tables, to old and new names of the entries that it may
choose.
"""


def new_key(key: str) -> str | None:
    """The name that a dotted key has now; ``None`` for a key that was never renamed."""
    return KEYS.get(key)


def new_entry(key: str, name: Any) -> str | None:
    """The name that an entry has now.

    Args:
      key: dotted key of the table that chooses it, with or without the number of an element.
      name: what the table says.
    """
    table = ".".join(part for part in key.split(".") if not part.isdecimal())
    return ENTRIES.get(table, {}).get(name) if isinstance(name, str) else None


def translated(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables of a stored configuration in today's names.

    Args:
      tables: as TOML or JSON gave them; left unchanged.

    Returns:
      New tables. Keys that have both names are left alone: they are refused later.
    """
    return _translated_table(tables, "")


def _translated_table(table: dict[str, Any], prefix: str) -> dict[str, Any]:
    result = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        new = KEYS.get(key, key).rpartition(".")[2]
        result[name if new in table else new] = _translated(value, key)
    return result


def _translated(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return [_translated(item, key) for item in value]
    if not isinstance(value, dict):
        return value
    table = _translated_table(value, f"{key}.")
    chosen = new_entry(key, table.get("kind"))
    return table if chosen is None else {**table, "kind": chosen}
