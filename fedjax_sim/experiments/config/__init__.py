"""Configuration: TOML files, checked against the signatures of everything that is registered."""

from fedjax_sim.experiments.config.json_schema import schema, schema_text
from fedjax_sim.experiments.config.load import Config, dumps, load_config, resolve
from fedjax_sim.experiments.config.model import Entries, entries_by_kind
from fedjax_sim.experiments.config.toml import ConfigErrors, read

__all__ = [
    "Config",
    "ConfigErrors",
    "Entries",
    "dumps",
    "entries_by_kind",
    "load_config",
    "read",
    "resolve",
    "schema",
    "schema_text",
]
