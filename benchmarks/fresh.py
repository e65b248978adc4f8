"""A function in a fresh process: what a measurement needs whose subject is the process itself (start-up, memory, the cores it may use).

``python -m benchmarks.fresh MODULE:FUNCTION JSON`` calls the function with the JSON's members as keywords and prints what it returns, a
JSON object, as the last line. JAX is not imported before the function imports it, so the function may set it up.
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
"""On an accelerator the process that asks holds most of the memory already."""


def fresh(
    function: str,
    cores: Iterable[int] | None = None,
    env: Mapping[str, str] | None = None,
    limit: float = 540,
    **arguments: Any,
) -> dict[str, Any]:
    """What ``function`` (``"benchmarks.growth:memory"``) returns in a process of its own.

    Args:
      cores: the cores that it may use, by number; all of ours by default. JAX sizes its pool of threads by them.
      env: environment variables to add.
      limit: seconds that it may take.
      arguments: keywords of the function, anything that JSON holds.

    Raises:
      FedError: where the process fails, with the end of what it said.
      subprocess.TimeoutExpired: where it takes longer than ``limit``.
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
    said = [
        line for line in done.stderr.splitlines() if line.strip() and not line.startswith("    @ ")
    ][-3:]  # but no C++ stack
    require(
        done.returncode == 0,
        f"{function} failed in its own process",
        got=said,
        fix=f"try it by hand: {' '.join(command[1:3])} {function}",
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    name, arguments, *cores = sys.argv[1:]
    if cores:
        os.sched_setaffinity(0, [int(core) for core in cores[0].split(",")])
    module, function = name.split(":")
    print(json.dumps(getattr(importlib.import_module(module), function)(**json.loads(arguments))))


if __name__ == "__main__":
    main()
