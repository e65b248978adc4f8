"""Loading a configuration: read, validate, try the factories, and report everything that is wrong at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError, create_model

from fedjax_sim.experiments.config import construct, messages
from fedjax_sim.experiments.config.assemble import assemble
from fedjax_sim.experiments.config.fields import NONE, Settings
from fedjax_sim.experiments.config.model import Entries, entries_by_kind, run_model
from fedjax_sim.experiments.config.toml import ConfigErrors, Document, read


class Config(NamedTuple):
    """A valid configuration. ``run`` has one attribute for each key and table of the file, defaults filled in."""

    document: Document
    run: Any


def load_config(path: str | Path, overrides: Sequence[str] = (), known: Entries | None = None) -> Config:
    """Reads and checks a configuration file; no data are loaded where nothing is wrong.

    Args:
      path: a TOML file.
      overrides: ``key.sub=value``, in order.
      known: what can be named in the file; everything registered by default.

    Raises:
      ConfigErrors: with all problems, one per line.
    """
    return resolve(read(path, overrides), known or entries_by_kind())


def resolve(document: Document, known: Entries) -> Config:
    """The second half of :func:`load_config`, for a document that was read before."""
    model = run_model(known)
    try:
        run = model.model_validate(document.tables)
    except ValidationError as error:
        found = messages.problems(error, model, document)
        raise ConfigErrors(
            "\n".join([*found, *_complaints(_sound(model, document, error), document, data=True)])
        ) from None
    found = _complaints(
        {name: getattr(run, name) for name in model.model_fields}, document, data=False
    )
    if found:
        more = _complaints(
            {name: getattr(run, name) for name in model.model_fields}, document, data=True
        )
        raise ConfigErrors("\n".join(dict.fromkeys([*found, *more])))
    return Config(document, run)


def _sound(model: type[Settings], document: Document, error: ValidationError) -> dict[str, Any]:
    """The tables in which pydantic found nothing wrong."""
    bad = {item["loc"][0] for item in error.errors()}
    good = {
        name: (field.annotation, field)
        for name, field in model.model_fields.items()
        if name in document.tables and name not in bad
    }
    part: Any = create_model("Sound", __base__=Settings, **good)  # type: ignore[call-overload]
    made = part.model_validate({name: document.tables[name] for name in good})
    return {name: getattr(made, name) for name in good}


def _complaints(sections: dict[str, Any], document: Document, data: bool) -> list[str]:
    """What the factories have to say; with the data's, or with a stand-in for them."""
    log = construct.Log([])
    assemble(sections, log, data)
    return [messages.line(document, key, text) for key, text in log.entries]


def plain(value: Any) -> Any:
    """Settings as TOML can write them: defaults filled in, ``None`` as a word or, where it is the default, left out."""
    if isinstance(value, Settings):
        fields = type(value).model_fields
        shown = {name: getattr(value, name) for name in fields}
        return {
            name: plain(v)
            for name, v in shown.items()
            if not (v is None and fields[name].default is None)
        }
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return NONE if value is None else value


def tables(run: Any) -> dict[str, Any]:
    """The whole configuration, as TOML or JSON can write it."""
    whole = plain(run)
    if "model" in whole:  # which takes the place of the task's own
        whole["task"].pop("model", None)
    return whole


def dumps(config: Config) -> str:
    """The resolved configuration as TOML; loading it gives the same configuration."""
    import tomli_w

    return tomli_w.dumps(tables(config.run))
