"""Calls a function in a fresh process, to measure start-up, memory, or use of cores.

``python -m benchmarks.fresh MODULE:FUNCTION JSON`` calls the function with the JSON's members as
keywords and prints what it returns, a JSON object, as the last line. JAX is not imported before the
function imports it, so the function may set it up.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedjax_sim.core.errors import require

ROOT = Path(__file__).parent.parent
SHARE = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Environment: on an accelerator the calling process holds most of the memory already."""
ERROR_LINES = 3
"""Last lines of a failed process's standard error that the error quotes."""


def fresh(
    function: str,
    cores: Iterable[int] | None = None,
    env: Mapping[str, str] | None = None,
    limit: float = 540,
    **arguments: Any,
) -> dict[str, Any]:
    """Calls a function in a process of its own; returns what it returns.

    Args:
      function: ``"benchmarks.growth:memory"``, module and name.
      cores: numbers of the cores that the process may use; by default all that this one may use.
        JAX sizes its pool of threads by them.
      env: environment variables to add.
      limit: seconds that it may take.
      arguments: keywords of the function, anything that JSON can hold.

    Raises:
      FedError: if the process fails; quotes the end of its standard error.
      subprocess.TimeoutExpired: if it takes longer than ``limit``.
    """
    command = [sys.executable, "-m", "benchmarks.fresh", function, json.dumps(arguments)]
    if cores is not None:
        command += [",".join(map(str, cores))]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **SHARE, **(env or {})},
        capture_output=True,
        text=True,
        timeout=limit,
    )
    errors = [line for line in done.stderr.splitlines() if line.strip() and not _is_stack(line)]
    require(
        done.returncode == 0,
        f"{function} failed in its own process",
        got=errors[-ERROR_LINES:],
        fix=f"try it by hand: {' '.join(command[1:3])} {function}",
    )
    return json.loads(done.stdout.splitlines()[-1])


def _is_stack(line: str) -> bool:
    """Whether a line belongs to a C++ stack trace."""
    return line.startswith("    @ ")


def main() -> None:
    """Calls the function that the command line names."""
    name, arguments, *cores = sys.argv[1:]
    if cores:
        os.sched_setaffinity(0, [int(core) for core in cores[0].split(",")])
    module, function = name.split(":")
    print(json.dumps(getattr(importlib.import_module(module), function)(**json.loads(arguments))))


if __name__ == "__main__":
    main()
