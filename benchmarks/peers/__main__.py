"""``python -m benchmarks.peers [--only W1,W3] [--peers fedjax,drjax]``: our rounds and the peers'.

Prints one JSON line per workload and peer.
"""

from __future__ import annotations

import argparse
import json
import os

import jax


def main() -> None:
    """Runs the command of the module's docstring."""
    from benchmarks.contest import ours
    from benchmarks.peers import PEERS
    from benchmarks.peers.race import race
    from benchmarks.workloads import WORKLOADS

    names = lambda text: text.split(",")  # noqa: E731
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--only", default=list(WORKLOADS), type=names, help="workloads, such as W1,W3"
    )
    parser.add_argument("--peers", default=list(PEERS), type=names, help=f"of {', '.join(PEERS)}")
    parser.add_argument(
        "--devices",
        default=min(os.cpu_count() or 1, 2),
        type=int,
        help="CPU cores that ours uses as devices",
    )
    parser.add_argument("--lanes", default="auto")
    parser.add_argument("--repeats", default=5, type=int)
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.devices)
    for name in options.only:
        workload = WORKLOADS[name]()
        lanes = options.lanes if options.lanes == "auto" else int(options.lanes)
        run = ours(workload, options.devices, lanes)
        for peer in options.peers:
            result = race(workload, run, [peer], options.repeats)[peer]
            print(json.dumps({"workload": name, "peer": peer, **result}), flush=True)


if __name__ == "__main__":
    main()
