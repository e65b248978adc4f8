"""What a configuration file can say: from a factory's annotations to pydantic types.

A registered factory is the only place where its settings are written down. Its signature gives
names, types and defaults, its docstring gives descriptions; nothing here knows any factory by name.
"""

from __future__ import annotations

import collections.abc
import inspect
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    ValidationInfo,
    create_model,
    field_validator,
)

from fedjax_sim.core.annotations import ANY_SIZE
from fedjax_sim.core.errors import require
from fedjax_sim.core.registry import Entry, Kind

Fields = dict[str, Any]
"""Name to ``(type, pydantic field)``."""

NONE = "none"
"""How a file writes Python's ``None``, which TOML lacks."""

SCALARS = (int, float, bool, str)
LARGEST = 2**31 - 1


class Settings(BaseModel):
    """Settings of one factory: one table of the file."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False
    )

    factory: ClassVar[Any] = None
    join: ClassVar[Any] = None
    """Makes one thing of several, where the file may list them."""
    kind_name: ClassVar[str] = ""
    """Name of the kind of the entry that the table chooses; empty for a table that chooses none."""
    entry: ClassVar[Any] = None
    """The registered entry, for a table that chooses one."""
    later: ClassVar[bool] = False
    """Whether the factory is called later, with arguments that no file can give."""

    @field_validator("*")
    @classmethod
    def _countable(cls, value: Any, info: ValidationInfo) -> Any:
        """Checks that whole numbers fit the 32 bits of a device, unless they are marked."""
        if ANY_SIZE in cls.model_fields[info.field_name or ""].metadata:
            return value
        for number in value if isinstance(value, tuple) else (value,):
            require(
                not isinstance(number, int) or abs(number) <= LARGEST,
                f"whole numbers go up to {LARGEST}",
                got=number,
                fix="write a smaller one",
            )
        return value


class Setting(NamedTuple):
    """One keyword of a factory."""

    hint: Any
    default: Any
    """``inspect.Parameter.empty`` where there is none."""
    marks: tuple[Any, ...] = ()
    """What ``Annotated`` says of it, such as ``MAY_CHANGE_ON_RESUME``."""


class Parts:
    """The tables that may stand for one parameter of a factory: an optimizer, an aggregator, a
    schedule, a partition.

    ``parts[hint]`` is the pydantic type of the table that may be written where a parameter has the
    annotation ``hint``. Types are built when they are first asked for. A kind's own tables are not
    parts of each other.
    """

    def __init__(self, kinds: Iterable[Kind], entries: Mapping[str, Mapping[str, Any]]) -> None:
        self._entries = entries
        self._kinds = {hint: kind for kind in kinds for hint in kind.stands_for}
        self._types: dict[str, Any] = {}

    def __contains__(self, hint: Any) -> bool:
        return isinstance(hint, collections.abc.Hashable) and hint in self._kinds

    def __getitem__(self, hint: Any) -> Any:
        kind = self._kinds[hint]
        if kind.name not in self._types:
            self._types[kind.name] = self._without(kind)._type(kind)
        return self._types[kind.name]

    def _without(self, kind: Kind) -> Parts:
        others = [other for other in self._kinds.values() if other.name != kind.name]
        return Parts(others, self._entries)

    def _type(self, kind: Kind) -> Any:
        entries = self._entries[kind.name]
        if kind.shorthand == "number":
            return number_or_table(
                [variant(kind, name, entries[name], self, {}) for name in entries]
            )
        tables = tagged(kind, entries, self)
        if kind.shorthand == "name":
            return nameable(tables, entries)
        return listable(tables) if kind.join else tables


def settings_of(factory: Callable[..., Any]) -> dict[str, Setting]:
    """The named parameters of a factory with resolved annotations."""
    hints = typing.get_type_hints(factory, include_extras=True)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(factory).parameters.values()
    return {
        parameter.name: _setting(hints.get(parameter.name, Any), parameter.default)
        for parameter in parameters
        if parameter.kind in kinds
    }


def _setting(hint: Any, default: Any) -> Setting:
    if typing.get_origin(hint) is not Annotated:
        return Setting(hint, default)
    plain, *marks = typing.get_args(hint)
    return Setting(plain, default, tuple(marks))


# -------------------------------------------------------------------------------------------- types


def to_type(hint: Any, parts: Parts) -> Any:
    """The pydantic type of an annotation; ``None`` where a file cannot say it, and something else
    has to provide it.
    """
    if hint in parts:
        return parts[hint]
    origin = typing.get_origin(hint)
    args = typing.get_args(hint)
    if hint in SCALARS or origin is Literal:
        return hint
    if origin is Annotated:
        return to_type(args[0], parts)
    if origin is tuple:
        inner = [item if item is Ellipsis else to_type(item, parts) for item in args]
        return None if None in inner else Annotated[tuple[tuple(inner)], Strict(False)]
    if origin in (Union, types.UnionType):
        return _union(args, parts)
    return None


def _union(args: tuple[Any, ...], parts: Parts) -> Any:
    """A union of what can be said; a function beside a number is a schedule."""
    if (
        float in args
        and collections.abc.Callable in [typing.get_origin(a) for a in args]
        and "schedule" in parts
    ):
        members = [parts["schedule"]]
    else:
        said = [a for a in args if a is not type(None)]
        members = (
            [parts[either(said)]]
            if either(said) in parts
            else [kind for a in said if (kind := to_type(a, parts)) is not None]
        )
    if not members:
        return None
    whole = either(members)
    return optional(whole) if type(None) in args else whole


def either(kinds: list[Any]) -> Any:
    """The union of types that are known only now."""
    return reduce(operator.or_, kinds)


def optional(kind: Any) -> Any:
    """The type, or ``None``, which a file writes as the word ``"none"``."""
    said = BeforeValidator(
        lambda value: None if value == NONE else value,
        json_schema_input_type=kind | Literal["none"],
    )
    return Annotated[kind | None, said]


def number_or_table(variants: list[type[Settings]]) -> Any:
    """A number, or one of these tables."""

    def pick(value: Any) -> str | None:
        return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", "number")

    members = [Annotated[float, Tag("number")]]
    members += [Annotated[variant, Tag(tag_of(variant)[1])] for variant in variants]
    return Annotated[either(members), Discriminator(pick)]


def listable(kind: Any) -> Any:
    """One table or a list of them; always a list once read."""
    listed = Annotated[list[kind], Field(min_length=1)]
    wrap = BeforeValidator(
        lambda value: [value] if isinstance(value, dict) else value,
        json_schema_input_type=kind | listed,
    )
    return Annotated[listed, wrap]


def nameable(kind: Any, names: Iterable[str]) -> Any:
    """A table, or its ``kind`` alone where the rest may keep its defaults."""
    said = kind | Literal[tuple(names)]
    return Annotated[
        kind,
        BeforeValidator(
            lambda value: {"kind": value} if isinstance(value, str) else value,
            json_schema_input_type=said,
        ),
    ]


# ----------------------------------------------------------------------------------------- variants


def variant(kind: Kind, entry_name: str, entry: Any, parts: Parts, extra: Fields) -> type[Settings]:
    """The table that names one registered factory: ``key = "name"`` and the factory's settings.

    Args:
      kind: of the entry.
      entry_name: the value of the table's key.
      entry: a registered entry, or a factory.
      parts: pydantic types of the tables that may stand for a parameter.
      extra: fields of every table of this kind; a factory's own take precedence.

    Raises:
      FedError: if a setting of the factory has the name of the key.
    """
    factory = getattr(entry, "factory", entry)
    fields = fields_of(factory, parts, kind.provided, kind.wired)
    require(
        kind.key not in fields,
        f"a {kind.name} has no setting of this name",
        got=repr(kind.key),
        fix=f"rename it in {entry_name!r}",
    )
    fixed = {kind.key: (Literal[entry_name], Field(description=f"which {kind.name}"))}
    model = table(f"{kind.name}_{entry_name}", factory, fixed | extra | fields)
    model.join = kind.join and staticmethod(kind.join)
    model.later = kind.deferred
    model.kind_name = kind.name
    model.entry = entry
    return model


def table(title: str, factory: Any, fields: dict[str, Any]) -> type[Settings]:
    """A model of settings that remembers the factory that they are for."""
    model = create_model(title, __base__=Settings, __doc__=summary(factory), **fields)
    model.factory = staticmethod(factory)
    return model


def fields_of(
    factory: Callable[..., Any], parts: Parts, skip: int = 0, wired: tuple[str, ...] = ()
) -> Fields:
    """Pydantic fields of the settings that a file can say.

    Others are wired, or keep their defaults.
    """
    described = arguments(factory)
    fields = {}
    for name, setting in list(settings_of(factory).items())[skip:]:
        kind = to_type(setting.hint, parts)
        if kind is None or name in wired:
            continue
        for mark in setting.marks:
            kind = Annotated[kind, mark]
        fields[name] = (kind, _field(setting.default, described.get(name)))
    return fields


def _field(default: Any, description: str | None) -> Any:
    if default is inspect.Parameter.empty:
        return Field(description=description)
    plain = type(default) in (*SCALARS, tuple)  # a NamedTuple of functions is a tuple, too
    return Field(default if plain else None, validate_default=plain, description=description)


def tagged(
    kind: Kind, entries: Mapping[str, Any], parts: Parts, extra: Fields | None = None
) -> Any:
    """The union of the tables of all entries of a kind, told apart by the kind's key."""
    variants = [variant(kind, name, entry, parts, extra or {}) for name, entry in entries.items()]
    return (
        variants[0]
        if len(variants) == 1
        else Annotated[either(variants), Field(discriminator=kind.key)]
    )


def tag_of(model: type[BaseModel]) -> tuple[str, str]:
    """``(key, tag)`` of a variant; empty where the model is not one."""
    for key in ("name", "kind"):
        field = model.model_fields.get(key)
        if (
            field is not None
            and typing.get_origin(field.annotation) is Literal
            and field.is_required()
        ):
            return key, typing.get_args(field.annotation)[0]
    return "", ""


def chosen_entries(settings: BaseModel) -> Iterator[Entry]:
    """The registered entries that a table and the tables in it choose."""
    entry = getattr(type(settings), "entry", None)
    if isinstance(entry, Entry):
        yield entry
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for inner in value if isinstance(value, list | tuple) else (value,):
            if isinstance(inner, BaseModel):
                yield from chosen_entries(inner)


# --------------------------------------------------------------------------------------- docstrings


def summary(thing: Any) -> str:
    """First sentence or paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def arguments(factory: Callable[..., Any]) -> dict[str, str]:
    """Descriptions from the ``Args:`` section of a docstring, by parameter."""
    _, _, rest = (inspect.getdoc(factory) or "").partition("Args:\n")
    block = re.split(r"\n(?=\S)", "\n" + rest)[0] if rest else ""
    entries = re.findall(r"^ +(\w+(?:, \w+)*): +(.*(?:\n {4,}.*)*)", block, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}
