"""Loading a configuration: read, validate, try the factories, and report everything that is wrong
at once.
"""

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
    """A valid configuration.

    Attributes:
      document: the file with its overrides.
      run: one attribute for each key and table of the file, defaults filled in.
    """

    document: Document
    run: Any


def load_config(
    path: str | Path, overrides: Sequence[str] = (), known: Entries | None = None
) -> Config:
    """Reads and checks a configuration file. No data are loaded if nothing is wrong.

    Args:
      path: a TOML file.
      overrides: ``"key.sub=value"``, in order.
      known: what can be named in the file; everything that is registered by default.

    Raises:
      ConfigErrors: with all problems, one per line.

    >>> import pathlib, tempfile
    >>> import fedjax_sim as fs
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "config.toml"
    >>> _ = path.write_text(
    ...     '[task]\\nname="quadratic"\\n[algorithm]\\nname="fedavg"\\n[sampler]\\nkind="full"'
    ... )
    >>> fs.load_config(path, ["algorithm.lr=0.2"]).run.algorithm.lr
    0.2
    """
    return resolve(read(path, overrides), known or entries_by_kind())


def resolve(document: Document, known: Entries) -> Config:
    """Checks a document that was read before.

    Args:
      document: from :func:`fedjax_sim.experiments.config.read`.
      known: what can be named in it.

    Raises:
      ConfigErrors: with all problems, one per line.
    """
    model = run_model(known)
    try:
        run = model.model_validate(document.tables)
    except ValidationError as error:
        problems = messages.problems(error, model, document)
        problems += _factory_problems(_valid_sections(model, document, error), document, data=True)
        raise ConfigErrors("\n".join(problems)) from None
    sections = {name: getattr(run, name) for name in model.model_fields}
    problems = _factory_problems(sections, document, data=False)
    if problems:
        problems += _factory_problems(sections, document, data=True)
        raise ConfigErrors("\n".join(dict.fromkeys(problems)))
    return Config(document, run)


def _valid_sections(
    model: type[Settings], document: Document, error: ValidationError
) -> dict[str, Any]:
    """The tables in which pydantic found nothing wrong."""
    bad = {item["loc"][0] for item in error.errors()}
    good = {
        name: (field.annotation, field)
        for name, field in model.model_fields.items()
        if name in document.tables and name not in bad
    }
    part: Any = create_model("Valid", __base__=Settings, **good)  # type: ignore[call-overload]
    validated = part.model_validate({name: document.tables[name] for name in good})
    return {name: getattr(validated, name) for name in good}


def _factory_problems(sections: dict[str, Any], document: Document, data: bool) -> list[str]:
    """Errors of the factories; with the data, or with a stand-in for them."""
    log = construct.Log([])
    assemble(sections, log, data)
    return [messages.line(document, key, text) for key, text in log.entries]


def plain(value: Any) -> Any:
    """Settings as TOML can write them.

    Defaults are filled in. ``None`` becomes a word, or is left out if it is the default.
    """
    if isinstance(value, Settings):
        fields = type(value).model_fields
        values = {name: getattr(value, name) for name in fields}
        return {
            name: plain(inner)
            for name, inner in values.items()
            if not (inner is None and fields[name].default is None)
        }
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return NONE if value is None else value


def tables(run: Any) -> dict[str, Any]:
    """The whole configuration, as TOML or JSON can write it."""
    whole = plain(run)
    if "model" in whole:  # it takes the place of the task's own
        whole["task"].pop("model", None)
    return whole


def dumps(config: Config) -> str:
    """The resolved configuration as TOML; loading it gives the same configuration."""
    import tomli_w

    return tomli_w.dumps(tables(config.run))
