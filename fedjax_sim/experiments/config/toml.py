"""Reading a configuration file and the dotted overrides of a command line, as plain tables."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_sim.core.errors import FedError, printable, sentence, shorten
from fedjax_sim.experiments.config.renamed import translated

COMMAND_LINE = "command line"
DEPTH = 30
"""Tables and lists within one another, at most."""
SIZE = 2**22
"""Bytes of a file, at most."""
LONG = "a whole number of more than 64 bits"
NESTED = f"tables or lists that are more than {DEPTH} deep"


class ConfigErrors(FedError):
    """All problems of a configuration, one ``file: key: what: got ...; fix`` per line."""

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
        from_outside = any(
            key == k or key.startswith(f"{k}.") or k.startswith(f"{key}.") for k in self.overridden
        )
        return COMMAND_LINE if from_outside else self.file


def located(origin: str, key: str, text: str) -> str:
    """``origin: key: text``, on one line."""
    return printable(f"{shorten(origin)}: {shorten(key, 100)}: {text}")


def read(path: str | Path, overrides: Sequence[str] = (), stored: bool = False) -> Document:
    """Reads a TOML file and applies ``key.sub=value`` overrides.

    Args:
      path: the file.
      overrides: applied in order. A value is read as TOML if it is TOML, else as text.
      stored: whether the file is that of a run's folder: keys of earlier versions are then
        translated.

    Raises:
      ConfigErrors: for a missing file, a syntax error or an override without ``=``.
    """
    path = Path(path)
    problems: list[str] = []
    written: dict[str, Any] = {}
    try:
        written = _loads(_text(path))
        written = translated(written) if stored else written
    except OSError as error:
        do = "give the path of a TOML file, such as configs/digits_fedavg.toml"
        problems.append(
            located(
                str(path), "(file)", sentence("cannot be read", got=error.strerror or error, fix=do)
            )
        )
    except UnicodeDecodeError as error:
        problems.append(
            located(
                str(path),
                "(file)",
                sentence("must be UTF-8 text", got=f"byte {error.start}", fix="save it as UTF-8"),
            )
        )
    except tomllib.TOMLDecodeError as error:
        do = "fix that line (text needs quotation marks, a table starts with [name])"
        problems.append(located(str(path), "(syntax)", sentence("must be TOML", got=error, fix=do)))
    tables = copy.deepcopy(written)
    pairs = [_split(override, problems) for override in overrides]
    for key, value in pairs:
        _put(tables, key, value, problems)
    if problems:
        raise ConfigErrors("\n".join(problems))
    return Document(str(path), tables, written, tuple(key for key, _ in pairs))


def _text(path: Path) -> str:
    """A file's text; of one that has no end, at most SIZE bytes."""
    with path.open("rb") as file:
        data = file.read(SIZE + 1)
    if len(data) > SIZE:
        raise tomllib.TOMLDecodeError(f"more than {SIZE:,} bytes")
    return data.decode().replace("\r\n", "\n")


def _loads(text: str) -> dict[str, Any]:
    """Python's reader, with errors of its own for what it lets through or stumbles over.

    Raises:
      TOMLDecodeError: also for whole numbers of more than 64 bits, which are no TOML, and for what
        is nested deeper than DEPTH.
    """
    try:
        made = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise tomllib.TOMLDecodeError(LONG if isinstance(error, ValueError) else NESTED) from error
    level: list[Any] = [made]
    for _ in range(DEPTH):
        if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in level):
            raise tomllib.TOMLDecodeError(LONG)
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise tomllib.TOMLDecodeError(NESTED)
    return made


def _split(override: str, problems: list[str]) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts) or len(parts) > DEPTH:
        what = sentence(
            "an override is key.sub=value",
            got=shorten(repr(override), 60),
            fix="write, for example, algorithm.lr=0.1",
        )
        problems.append(located(COMMAND_LINE, key, what))
    try:
        value = _loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return key.strip(), value


def _put(tables: dict[str, Any], key: str, value: Any, problems: list[str]) -> None:
    """Sets one dotted key; numbers in it count the elements of a list."""
    *way, last = key.split(".")
    place: Any = tables
    for part in way:
        if isinstance(place, list) and _counts(part, place):
            place = place[int(part)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
        else:
            place = None
    if isinstance(place, list) and _counts(last, place):
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        do = f"set the whole of {shorten('.'.join(way) or key, 60)}, or change the file"
        problems.append(
            located(
                COMMAND_LINE,
                key,
                sentence("there is no such place in the file", got=shorten(repr(key), 60), fix=do),
            )
        )


def _counts(part: str, place: list[Any]) -> bool:
    """Whether a part of a key is the number of an element."""
    return part.isdecimal() and len(part) < 10 and int(part) < len(place)
