"""Configuration: TOML files, checked against the signatures of everything that is registered."""

from fedjax_sim.config.build import build
from fedjax_sim.config.document import ConfigErrors, read
from fedjax_sim.config.experiment import Experiment
from fedjax_sim.config.load import Config, dumps, load, resolve
from fedjax_sim.config.schemas import schema, schema_text
from fedjax_sim.config.sections import Registries, registries

__all__ = [
    "Config",
    "ConfigErrors",
    "Experiment",
    "Registries",
    "build",
    "dumps",
    "load",
    "read",
    "registries",
    "resolve",
    "schema",
    "schema_text",
]
