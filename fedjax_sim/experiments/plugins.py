"""Plug-ins: modules from outside the package that register algorithms, models, samplers and
everything else that has a kind.

A plug-in is loaded because it is installed with an entry point of the group ``fedjax_sim``,
because ``FEDJAX_SIM_PLUGINS`` names it, or because the command line does (``--plugin``). It is
never loaded because a file or a run's folder names it: a folder only records which plug-ins its
run used, so that ``resume`` and ``evaluate`` can ask for them by name.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from fedjax_sim.core import files, registry
from fedjax_sim.core.errors import FedError, fail, require, sentence
from fedjax_sim.experiments.rooms import load_rooms

GROUP = "fedjax_sim"
"""The group of entry points."""
VARIABLE = "FEDJAX_SIM_PLUGINS"
"""The environment variable that names modules, separated by commas."""
RECORD = "plugins.json"
"""The file in a run's folder."""


class Plugin(NamedTuple):
    """A module from outside that was loaded.

    Attributes:
      name: the module's dotted name, or the name of its file.
      distribution: the installed package that it belongs to, if it belongs to one.
      version: of that package, or the first digits of the file's sha256.
    """

    name: str
    distribution: str | None
    version: str | None


_LOADED: dict[str, Plugin] = {}


def load_plugins(names: Iterable[str] = ()) -> dict[str, Plugin]:
    """Loads the installed plug-ins, those that the environment names, and these; each once.

    Args:
      names: dotted names of modules, or paths of ``.py`` files.

    Returns:
      All plug-ins that are loaded, by name.

    Raises:
      FedError: if a plug-in cannot be imported.
    """
    load_rooms()  # so that what is registered from here on belongs to plug-ins
    for point in importlib.metadata.entry_points(group=GROUP):
        distribution = point.dist.name if point.dist else None
        version = point.dist.version if point.dist else None
        _load(Plugin(point.module, distribution, version))
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    for name in [*filter(None, named), *names]:
        _load_named(name)
    return dict(_LOADED)


def used_plugins(entries: Iterable[registry.Entry]) -> list[dict[str, Any]]:
    """What a run's folder records of the plug-ins that registered these entries."""
    record: dict[str, dict[str, Any]] = {}
    for entry in entries:
        plugin = _LOADED.get(entry.plugin or "")
        if plugin is not None:
            facts = record.setdefault(plugin.name, {**plugin._asdict(), "registers": []})
            facts["registers"].append(f"{entry.kind} {entry.name}")
    return list(record.values())


def record_plugins(folder: Path, used: list[dict[str, Any]]) -> None:
    """Writes the record into a run's folder; nothing for a run without plug-ins."""
    if used:
        files.save(folder / RECORD, json.dumps(used, indent=2) + "\n")


def require_plugins(folder: Path) -> tuple[str, ...]:
    """Checks that the plug-ins of a run are loaded.

    Args:
      folder: the run's.

    Returns:
      A note for each plug-in that is loaded in another version.

    Raises:
      FedError: if one is not loaded; the error names it, its version and how to load it.
    """
    notes = []
    for facts in _recorded(folder):
        name = str(facts.get("name"))
        version = facts.get("version")
        loaded = _LOADED.get(name)
        if loaded is None:
            fail(
                "this run used a plug-in that is not loaded",
                got=f"{name} {version or ''} ({', '.join(map(str, facts.get('registers', ())))})",
                fix=_remedy(name, facts.get("distribution"), version),
            )
        if loaded.version != version:
            notes.append(f"continued with plug-in {name} {loaded.version}, which was {version}")
    return tuple(notes)


def _remedy(name: str, distribution: Any, version: Any) -> str:
    installed = f"install {distribution} {version}, or " if distribution else ""
    module = f"path/to/{name}.py" if distribution is None and "." not in name else name
    return f"{installed}name the module: --plugin {module}"


def _recorded(folder: Path) -> list[dict[str, Any]]:
    path = folder / RECORD
    if not path.is_file():
        return []
    try:
        facts = files.parse_json(files.read(path))
    except (OSError, ValueError):
        facts = None
    well_formed = isinstance(facts, list) and all(isinstance(each, dict) for each in facts)
    if not well_formed:
        fail(
            "the record of a run's plug-ins cannot be read",
            got=path,
            fix="restore the file, or delete it and name the plug-ins with --plugin",
        )
    return facts  # type: ignore[return-value]


def _load_named(name: str) -> None:
    path = Path(name) if name.endswith(".py") else None
    module = path.stem if path else name
    if path and module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
        require(
            file is not None and Path(file).resolve() == path.resolve(),
            "a plug-in's file has the name of another module",
            got=path,
            fix="rename the file, or leave it out if you mean that module",
        )
    if module not in _LOADED:  # describing it takes long
        _load(_described(name), path)


def _described(name: str) -> Plugin:
    """What is known of a plug-in before it is imported."""
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            fail("a plug-in must exist", got=name, fix="give the path of a .py file")
        return Plugin(path.stem, None, hashlib.sha256(path.read_bytes()).hexdigest()[:12])
    packages = importlib.metadata.packages_distributions().get(name.partition(".")[0], [])
    version = importlib.metadata.version(packages[0]) if packages else None
    return Plugin(name, packages[0] if packages else None, version)


def _load(plugin: Plugin, path: Path | None = None) -> None:
    if plugin.name in _LOADED:
        return
    try:
        with registry.loading(plugin.name):
            _import(plugin.name, path)
        registry.assign(plugin.name)  # what it registered if a program had imported it before
    except FedError:
        raise
    except Exception as error:
        got = f"{plugin.name}: {type(error).__name__}: {error}"
        fix = "check its name and what it imports, or uninstall it"
        raise FedError(sentence("a plug-in could not be imported", got=got, fix=fix)) from error
    _LOADED[plugin.name] = plugin


def _import(name: str, path: Path | None) -> ModuleType:
    if path is None:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        fail("a plug-in is a Python module", got=path, fix="give the path of a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
