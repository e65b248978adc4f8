"""From validated tables to the things they describe: factories are called, their errors collected
with the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from fedjax_sim.core.errors import FedError, sentence
from fedjax_sim.experiments.config.fields import Settings, settings_of

FAILED: Any = object()
"""Stands for something that could not be made; the reason is in the log."""

NO_TABLES: Mapping[str, str] = MappingProxyType({})


class Log(NamedTuple):
    """Errors of factories.

    Attributes:
      entries: ``(dotted key, sentence)`` for each.
    """

    entries: list[tuple[str, str]]

    def guard(self, key: str, fields: Any, call: Any, inner: Mapping[str, str] = NO_TABLES) -> Any:
        """Calls a function and notes its error.

        Args:
          key: of the table that the call is about.
          fields: names of the table's settings.
          call: a function without arguments.
          inner: see :func:`key_of`.

        Returns:
          What the call returned; :data:`FAILED` if it raised an error that the user can fix.
        """
        try:
            return call()
        except FedError as error:
            self.entries.append((key_of(key, fields, error, inner), str(error)))
        except (MemoryError, OverflowError) as error:
            what = "this is larger than the machine can hold"
            got = error or "no memory"
            self.entries.append((key, sentence(what, got=got, fix="lower its numbers")))
        return FAILED


def key_of(key: str, fields: Any, error: FedError, inner: Mapping[str, str] = NO_TABLES) -> str:
    """The dotted key that an error is about.

    Args:
      key: of the table whose factory raised it.
      fields: names of the table's settings.
      error: with the setting that caused it, if the factory named one.
      inner: setting to its place below the table, for settings of the table's own tables that are
        used only later.

    Returns:
      The key of the setting; that of the table if the error names no setting of it.
    """
    field = (error.setting or "").rpartition(".")[2]
    if field in fields:
        return f"{key}.{field}"
    return f"{key}.{inner[field]}" if field in inner else key


def make(value: Any, key: str, log: Log, *wired: Any, **more: Any) -> Any:
    """Makes the thing that a table describes.

    Only what was written is passed on, so that everything else keeps the factory's own default.

    Args:
      value: a table, a list of tables, or a plain value (returned as it is).
      key: its dotted key.
      log: takes the errors.
      *wired: arguments that no file can give, by position.
      **more: the same, by keyword.
    """
    if isinstance(value, list):
        return _make_list(value, key, log)
    if not isinstance(value, Settings):
        return value
    factory = type(value).factory
    names = [name for name in settings_of(factory) if name in type(value).model_fields]
    written = [name for name in names if name in value.model_fields_set]
    keywords = {name: make(getattr(value, name), f"{key}.{name}", log) for name in written}
    if FAILED in keywords.values():
        return FAILED
    if type(value).later:
        return partial(factory, **keywords)
    call = partial(factory, *wired, **keywords, **more)
    return log.guard(key, names, call, _places_of_later_settings(value))


def _make_list(tables: list[Settings], key: str, log: Log) -> Any:
    several = len(tables) > 1
    made = [
        make(table, f"{key}.{number}" if several else key, log)
        for number, table in enumerate(tables)
    ]
    if FAILED in made:
        return FAILED
    return log.guard(key, (), lambda: type(tables[0]).join(*made))


def _places_of_later_settings(value: Settings) -> dict[str, str]:
    """Settings of inner tables that are used only later, by the thing that is made of this one."""
    inner = ((name, getattr(value, name)) for name in type(value).model_fields)
    return {
        field: f"{name}.{field}"
        for name, table in inner
        if getattr(table, "later", False)
        for field in type(table).model_fields
    }
