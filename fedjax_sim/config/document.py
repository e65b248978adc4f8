"""Reading a configuration file and the dotted overrides of a command line, as plain tables."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_sim.checks import FedError, sentence

COMMAND_LINE = "command line"


class ConfigErrors(FedError):
    """Everything that is wrong with a configuration; one ``file: key: what: got ...; do`` per line."""

    @property
    def problems(self) -> list[str]:
        """The lines."""
        return str(self).splitlines()


class Document(NamedTuple):
    """A file's tables with the overrides put in."""

    file: str
    tables: dict[str, Any]
    written: dict[str, Any]
    """The same without the overrides."""
    overridden: tuple[str, ...]
    """Dotted keys that came from the command line."""

    def origin(self, key: str) -> str:
        """Where a key was written: the file, or the command line."""
        from_outside = any(key == k or key.startswith(f"{k}.") or k.startswith(f"{key}.") for k in self.overridden)
        return COMMAND_LINE if from_outside else self.file


def read(path: str | Path, overrides: Sequence[str] = ()) -> Document:
    """Reads a TOML file and puts ``key.sub=value`` overrides in. A value is read as TOML where it can be, else as text.

    Raises:
      ConfigErrors: for a missing file, a syntax error or an override without ``=``.
    """
    path = Path(path)
    problems, written = [], {}
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        do = "give the path of a TOML file, such as configs/digits_fedavg.toml"
        problems.append(f"{path}: (file): cannot be read: got {error.strerror or error}; {do}")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: (file): must be UTF-8 text: got byte {error.start}; save it as UTF-8")
    except tomllib.TOMLDecodeError as error:
        do = "mend that line (text needs quotation marks, a table starts with [name])"
        problems.append(f"{path}: (syntax): {sentence('must be TOML', error, do)}")
    tables = copy.deepcopy(written)
    pairs = [_split(override, problems) for override in overrides]
    for key, value in pairs:
        _put(tables, key, value, problems)
    if problems:
        raise ConfigErrors("\n".join(problems))
    return Document(str(path), tables, written, tuple(key for key, _ in pairs))


def _split(override: str, problems: list[str]) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        what = sentence("an override is key.sub=value", repr(override), "write, for example, algorithm.lr=0.1")
        problems.append(f"{COMMAND_LINE}: {key}: {what}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return key.strip(), value


def _put(tables: dict[str, Any], key: str, value: Any, problems: list[str]) -> None:
    """Sets one dotted key; numbers in it count the elements of a list."""
    *way, last = key.split(".")
    place: Any = tables
    for part in way:
        if isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
        else:
            place = None
    if isinstance(place, list) and last.isdigit() and int(last) < len(place):
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        what = sentence("there is no such place in the file", repr(key), f"set the whole of {'.'.join(way) or key}, or mend the file")
        problems.append(f"{COMMAND_LINE}: {key}: {what}")
