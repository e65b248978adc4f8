"""The command line. Parsing imports neither JAX nor anything else that is slow; each verb imports what it needs."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from fedjax_sim.checks import FedError

KINDS = ("algorithms", "aggregators", "tasks", "models", "samplers", "optimizers", "schedules")


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    top = argparse.ArgumentParser(prog="fedjax-sim", description="Federated learning, simulated in JAX. Start with: fedjax-sim demo")
    top.add_argument("--version", action="store_true", help="versions of this package and of what its results depend on")
    verbs = top.add_subparsers(dest="verb", metavar="VERB")
    _running(verbs)
    _looking(verbs)
    return top


def _running(verbs: argparse._SubParsersAction) -> None:
    run = verbs.add_parser("run", help="train what a configuration file describes")
    _config(run)
    run.add_argument("--out", metavar="DIR", help="folder of the run (default: the next free one below runs/)")
    run.add_argument("--profile", metavar="DIR", help="trace three rounds after the first with JAX's profiler, into this folder")
    run.set_defaults(call="running:run")
    resume = verbs.add_parser("resume", help="go on with a run from its newest checkpoint")
    _run_folder(resume)
    resume.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, such as engine.devices=1")
    resume.add_argument("--rounds", type=int, metavar="N", help="rounds at the end, those before included")
    resume.set_defaults(call="running:resume")
    evaluate = verbs.add_parser("evaluate", help="evaluate the newest checkpoint of a run, on all clients too")
    _run_folder(evaluate)
    evaluate.set_defaults(call="running:evaluate")
    demo = verbs.add_parser("demo", help="train two algorithms on real data, side by side (a minute or two)")
    demo.add_argument("--out", metavar="DIR", help="folder of both runs (default: the next free runs/demo-...)")
    demo.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change in both, such as rounds=50")
    demo.set_defaults(call="demo:demo")


def _looking(verbs: argparse._SubParsersAction) -> None:
    check = verbs.add_parser("check", help="validate a configuration, and tell its costs without running it")
    _config(check)
    check.set_defaults(call="looking:check")
    known = verbs.add_parser("list", help="what can be named in a configuration")
    known.add_argument("kind", nargs="?", choices=KINDS, help="only these")
    known.set_defaults(call="looking:list_known")
    describe = verbs.add_parser("describe", help="the card of an algorithm, task, model, ... and its settings")
    describe.add_argument("name", metavar="NAME", help="a name from `fedjax-sim list`")
    describe.set_defaults(call="looking:describe")
    schema = verbs.add_parser("schema", help="the JSON schema of configuration files, for editors")
    schema.add_argument("--out", metavar="FILE", help="write it to a file")
    schema.set_defaults(call="looking:print_schema")


def _config(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("config", metavar="CONFIG", help="a TOML file, such as configs/digits_scaffold.toml")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, such as algorithm.lr=0.05")


def _run_folder(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="the folder of a run")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Returns:
      0; 2 for everything that the user can mend, after it was said on standard error.
    """
    top = parser()
    asked = _parse(top, arguments)
    if asked.version:
        asked.call = "looking:print_versions"
    if not getattr(asked, "call", None):
        top.print_help()
        return 2
    module, _, name = asked.call.partition(":")
    try:
        getattr(importlib.import_module(f"fedjax_sim.cli.{module}"), name)(asked)
    except FedError as error:
        return _complain(error)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parse(top: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Like ``parse_args``, but overrides may also stand after options."""
    asked, rest = top.parse_known_args(arguments)
    odd = [word for word in rest if word.startswith("-") or "=" not in word or not hasattr(asked, "overrides")]
    if odd:
        top.error(f"unrecognized arguments: {' '.join(odd)}")
    if rest:
        asked.overrides = [*asked.overrides, *rest]
    return asked


def _complain(error: FedError) -> int:
    """One line per problem; a configuration's are counted, for nothing has happened yet."""
    print(error, file=sys.stderr)
    count = len(getattr(error, "problems", ()))
    if count:
        print(f"{count} problem{'s' if count > 1 else ''}; nothing was run.", file=sys.stderr)
    return 2
