"""The JSON schema of configuration files, for editors."""

from __future__ import annotations

import json
import math
from typing import Any

from fedjax_sim.experiments.config.model import Entries, entries_by_kind, run_model


def schema(known: Entries | None = None) -> dict[str, Any]:
    """The schema of everything that :func:`fedjax_sim.experiments.config.load_config` accepts."""
    made = _tidy(run_model(known or entries_by_kind()).model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fedjax_sim run",
        **made,
    }


def schema_text(known: Entries | None = None) -> str:
    """The schema as text, the same for equal entries."""
    return json.dumps(schema(known), indent=1, allow_nan=False) + "\n"


def _tidy(node: Any) -> Any:
    """Without titles that repeat names, and without defaults that JSON cannot say."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: _tidy(value) for key, value in node.items() if not _noise(key, value)}


def _noise(key: str, value: Any) -> bool:
    infinite = isinstance(value, float) and not math.isfinite(value)
    return (key == "title" and isinstance(value, str)) or (
        key == "default" and (value is None or infinite)
    )
