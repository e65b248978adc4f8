"""From validated tables to the things they describe, by calling the factories. Their complaints are collected, with the key."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from fedjax_sim.core.errors import FedError, sentence
from fedjax_sim.experiments.config.fields import Settings, settings_of

FAILED: Any = object()
"""Stands for something that could not be made; the reason is in the log."""


class Log(NamedTuple):
    """Complaints of factories: ``(dotted key, sentence)``."""

    entries: list[tuple[str, str]]

    def guard(
        self, key: str, fields: Any, call: Any, inner: Mapping[str, str] = MappingProxyType({})
    ) -> Any:
        """``call()``, or :data:`FAILED` with the complaint noted at ``key`` or, where it names one, at a field of it."""
        try:
            return call()
        except FedError as error:
            self.entries.append((key_of(key, fields, error, inner), str(error)))
        except (MemoryError, OverflowError) as error:
            self.entries.append(
                (
                    key,
                    sentence(
                        "this is larger than the machine can hold",
                        got=error or "no memory",
                        fix="lower its numbers",
                    ),
                )
            )
        return FAILED


def key_of(
    key: str, fields: Any, error: FedError, inner: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The dotted key that an error is about.

    Args:
      key: of the table whose factory raised it.
      fields: names of the table's settings.
      error: with the setting that caused it, if the factory named one.
      inner: where further settings stand: those of the fields' own tables, of things that are called by what is built.

    Returns:
      The key of the setting; that of the table if the error names no setting of it.
    """
    field = (error.setting or "").rpartition(".")[2]
    if field in fields:
        return f"{key}.{field}"
    return f"{key}.{inner[field]}" if field in inner else key


def make(value: Any, key: str, log: Log, *wired: Any, **more: Any) -> Any:
    """The thing that a table describes.

    Only what was written is passed on, so that everything else keeps the factory's own default.

    Args:
      value: a table, a list of tables, or a plain value (returned as it is).
      key: where it stands.
      log: takes the complaints.
      wired: arguments that no file can say, given by position.
      more: the same, by keyword.
    """
    if isinstance(value, list):
        made = [
            make(item, f"{key}.{i}" if len(value) > 1 else key, log) for i, item in enumerate(value)
        ]
        return FAILED if FAILED in made else log.guard(key, (), lambda: type(value[0]).join(*made))
    if not isinstance(value, Settings):
        return value
    factory = type(value).factory
    names = [name for name in settings_of(factory) if name in type(value).model_fields]
    keywords = {
        name: make(getattr(value, name), f"{key}.{name}", log)
        for name in names
        if name in value.model_fields_set
    }
    if FAILED in keywords.values():
        return FAILED
    if type(value).later:
        return partial(factory, **keywords)
    return log.guard(key, names, lambda: factory(*wired, **keywords, **more), _inner(value))


def _inner(value: Settings) -> dict[str, str]:
    """The settings of tables inside that are used only later, by the thing that is made of this one."""
    tables = ((name, getattr(value, name)) for name in type(value).model_fields)
    return {
        field: f"{name}.{field}"
        for name, table in tables
        if getattr(table, "later", False)
        for field in type(table).model_fields
    }
