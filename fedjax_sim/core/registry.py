"""Everything that has a name in a configuration file, a command or a table: one registry for all
kinds.

A *kind* (algorithm, sampler, model, ...) is declared once, by :func:`declare`, in the room that
owns it. An *entry* is registered by :func:`register`, which takes a function, a module or a
record. Configuration, schema, command line, documents, tests and benchmarks iterate over
:func:`kinds` and :func:`entries`; none of them names an entry.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from fedjax_sim.core.calls import recorded
from fedjax_sim.core.errors import fail, require, suggest


class Kind(NamedTuple):
    """What the entries of one kind have in common.

    Attributes:
      name: singular, as in ``register("sampler", ...)``.
      plural: as in ``fedjax-sim list samplers``.
      meaning: one line for the documents.
      key: the key by which a table of a configuration file names an entry, ``"name"`` or
        ``"kind"``.
      section: the table of a configuration file that holds one entry of this kind; ``None`` if
        there is none.
      wraps: the kind whose section takes entries of this kind as optional tables; ``None`` for
        most kinds.
      stands_for: annotations of factories' parameters for which a table of this kind may be
        written.
      join: makes one value of several tables in a list, for kinds that may be listed.
      shorthand: what may be written instead of a table: ``"number"``, ``"name"``, or ``None``.
      provided: the number of first parameters of a factory that the program passes.
      wired: names of parameters that the program passes by keyword.
      deferred: whether the program calls the factory later, so that a table becomes a partial call.
      adapt: wraps the factory of every entry; ``None`` for most kinds.
      is_factory: whether entries are called; others, such as data sets, are records.
    """

    name: str
    plural: str
    meaning: str
    key: str = "kind"
    section: str | None = None
    wraps: str | None = None
    stands_for: tuple[Any, ...] = ()
    join: Callable[..., Any] | None = None
    shorthand: str | None = None
    provided: int = 0
    wired: tuple[str, ...] = ()
    deferred: bool = False
    adapt: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
    is_factory: bool = True


class Entry(NamedTuple):
    """One registered thing. Calling it calls its factory.

    Attributes:
      kind: name of its kind.
      name: its own name.
      factory: what makes it; the record itself for kinds that are not called.
      card: the text that ``fedjax-sim describe`` shows before the settings.
      law: the identity that tests an algorithm; ``None`` for other kinds.
      metadata: further facts, by name.
      plugin: the plug-in that registered it; ``None`` for this package and for a user's own script.
    """

    kind: str
    name: str
    factory: Any
    card: str = ""
    law: Any = None
    metadata: Mapping[str, Any] = MappingProxyType({})
    plugin: str | None = None

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Calls the factory."""
        return self.factory(*args, **settings)


_KINDS: dict[str, Kind] = {}
_ENTRIES: dict[str, dict[str, Entry]] = {}
_PLUGIN: list[str] = []
"""The plug-ins that are being loaded, innermost last."""


class Entries(Mapping[str, Any]):
    """The entries of one kind by name, in the order of registration; always up to date."""

    def __init__(self, kind: str, read: Callable[[Entry], Any] = lambda entry: entry) -> None:
        self._kind = kind
        self._read = read

    def __getitem__(self, name: str) -> Any:
        return self._read(_ENTRIES[self._kind][name])

    def __iter__(self) -> Iterator[str]:
        return iter(_ENTRIES[self._kind])

    def __len__(self) -> int:
        return len(_ENTRIES[self._kind])

    def __repr__(self) -> str:
        return f"Entries({self._kind!r}: {', '.join(self)})"


def declare(kind: Kind) -> Kind:
    """Makes a kind known. Declaring the same kind again changes nothing.

    Args:
      kind: the declaration.

    Returns:
      The kind.

    Raises:
      FedError: if another kind has this name.
    """
    known = _KINDS.get(kind.name)
    require(
        known is None or known.plural == kind.plural,
        "this kind is already declared",
        got=kind.name,
        fix="choose another name",
    )
    _KINDS[kind.name] = kind
    _ENTRIES.setdefault(kind.name, {})
    return kind


def kinds() -> Mapping[str, Kind]:
    """The declared kinds by name, in alphabetical order, whatever was imported first."""
    return MappingProxyType(dict(sorted(_KINDS.items())))


def kind(name: str) -> Kind:
    """The kind of this name.

    Raises:
      FedError: if no kind has this name.
    """
    if name not in _KINDS:
        fail("unknown kind", got=repr(name), fix=suggest(name, _KINDS), setting="kind")
    return _KINDS[name]


def entries(kind: str) -> Entries:
    """The entries of a kind: a live, read-only mapping from name to :class:`Entry`."""
    return Entries(kind)


def records(kind: str) -> Entries:
    """The entries of a kind, each as what was registered, without its card and metadata."""
    return Entries(kind, lambda entry: entry.factory)


def register(
    kind: str,
    name: Any = None,
    thing: Any = None,
    *,
    law: Any = None,
    card: str | None = None,
    **metadata: Any,
) -> Any:
    """Registers something under a name, so that files and commands can use it.

    Use it as a decorator, ``@register("sampler")`` or ``@register("sampler", "my_name")``, or as a
    call, ``register("sampler", function)``, ``register("sampler", "my_name", function)``,
    ``register("algorithm", module)``.

    Args:
      kind: name of a declared kind, such as ``"algorithm"``.
      name: its name; by default that of the function or module. May be left out, as above.
      thing: a factory, a record, or a module that has a factory of the module's own name and, for
        an algorithm, ``LAW``.
      law: the identity that tests an algorithm, see :class:`fedjax_sim.core.law.Law`.
      card: what ``describe`` shows; by default the module's docstring, or nothing for a function,
        whose docstring is shown anyway.
      **metadata: further facts, kept in ``Entry.metadata``.

    Returns:
      The factory that was registered, which remembers its calls (see :mod:`fedjax_sim.core.calls`);
      a module or record unchanged; a decorator if nothing was given to register.

    Raises:
      FedError: if the kind is unknown, the name is taken by something else or is not an
        identifier, or a module has no factory.

    >>> from fedjax_sim.core import registry
    >>> spice = registry.declare(registry.Kind("spice", "spices", "for this example"))
    >>> @registry.register("spice")
    ... def pepper(grains: int = 3):
    ...     return grains
    >>> registry.entries("spice")["pepper"](grains=4)
    4
    """
    if name is not None and not isinstance(name, str):
        thing = name  # register(kind, thing)
        name = None
    if thing is None:
        return lambda decorated: register(kind, name, decorated, law=law, card=card, **metadata)
    entry = _entry(globals()["kind"](kind), name, thing, law, card, metadata)
    _refuse_collision(entry)
    _ENTRIES[kind][entry.name] = entry
    return entry.factory if inspect.isfunction(thing) else thing


@contextlib.contextmanager
def loading(plugin: str) -> Iterator[None]:
    """While open, entries that are registered belong to this plug-in."""
    _PLUGIN.append(plugin)
    try:
        yield
    finally:
        _PLUGIN.pop()


def assign(plugin: str) -> None:
    """Makes entries whose factories a module defines, and that belong to none, a plug-in's.

    Args:
      plugin: the dotted name of the module or package.
    """
    for known in _ENTRIES.values():
        for name, entry in known.items():
            module = str(_identity(entry)[0])
            if entry.plugin is None and f"{module}.".startswith(f"{plugin}."):
                known[name] = entry._replace(plugin=plugin)


def _entry(
    kind: Kind, name: str | None, thing: Any, law: Any, card: str | None, metadata: dict[str, Any]
) -> Entry:
    if isinstance(thing, ModuleType):
        factory = _own_factory(kind, thing)
        name = name or thing.__name__.rpartition(".")[2]
        law = law if law is not None else getattr(thing, "LAW", None)
        card = card if card is not None else inspect.getdoc(thing)
    else:
        factory = thing
        name = name or str(getattr(thing, "__name__", ""))
    require(
        name.isidentifier(),
        f"the name of a {kind.name} is an identifier",
        got=repr(name),
        fix="use letters, digits and underscores",
    )
    if kind.adapt:
        factory = kind.adapt(factory)
    if kind.is_factory and not kind.deferred:
        factory = recorded(kind.name, name, factory)
    plugin = _PLUGIN[-1] if _PLUGIN else None
    facts = MappingProxyType(dict(metadata))
    return Entry(kind.name, name, factory, card or "", law, facts, plugin)


def _own_factory(kind: Kind, module: ModuleType) -> Any:
    """The factory of a module, which has the module's own name."""
    own = module.__name__.rpartition(".")[2]
    factory = getattr(module, own, None)
    require(
        factory is not None,
        f"a module is registered by the {kind.name} of its own name",
        got=f"{module.__name__} without {own!r}",
        fix=f"define {own} in it",
    )
    return factory


def _refuse_collision(entry: Entry) -> None:
    """Refuses a name that something else has.

    A function defined again, as by a notebook's cell, replaces its earlier self.
    """
    known = _ENTRIES[entry.kind].get(entry.name)
    require(
        known is None or _identity(known) == _identity(entry),
        f"this {entry.kind} is already registered",
        got=repr(entry.name),
        fix="choose another name",
    )


def _identity(entry: Entry) -> tuple[Any, ...]:
    made = inspect.unwrap(entry.factory) if callable(entry.factory) else entry.factory
    return getattr(made, "__module__", None), getattr(made, "__qualname__", repr(made))
