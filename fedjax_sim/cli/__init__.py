"""The command line.

Parsing imports neither JAX nor anything else that is slow; each verb imports what it needs.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from fedjax_sim.core.errors import FedError, sentence

FORMATS = ("safetensors", "stablehlo", "msgpack", "npz")


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    top = argparse.ArgumentParser(
        prog="fedjax-sim",
        description="Federated learning, simulated in JAX. Start with: fedjax-sim demo",
    )
    top.add_argument(
        "--version",
        action="store_true",
        help="versions of this package and of what its results depend on",
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB")
    _running(verbs)
    _looking(verbs)
    _data(verbs)
    return top


def _running(verbs: argparse._SubParsersAction) -> None:
    run = verbs.add_parser("run", help="train what a configuration file describes")
    _config(run)
    run.add_argument(
        "--out", metavar="DIR", help="folder of the run (default: the next free one below runs/)"
    )
    run.add_argument(
        "--profile",
        metavar="DIR",
        help="trace three rounds after the first with JAX's profiler, into this folder",
    )
    _processes(run)
    run.set_defaults(call="run:run")
    resume = verbs.add_parser("resume", help="go on with a run from its newest checkpoint")
    _run_folder(resume)
    resume.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings to change, such as engine.devices=1",
    )
    resume.add_argument(
        "--rounds", type=int, metavar="N", help="rounds at the end, those before included"
    )
    _processes(resume)
    resume.set_defaults(call="run:resume")
    evaluate = verbs.add_parser(
        "evaluate", help="evaluate the newest checkpoint of a run, on all clients too"
    )
    _run_folder(evaluate)
    evaluate.set_defaults(call="run:evaluate")
    export = verbs.add_parser(
        "export", help="write the model of a run as one file for other programs"
    )
    _run_folder(export)
    export.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="weights, or the whole model as a StableHLO program",
    )
    export.add_argument(
        "--out",
        metavar="FILE",
        help="the file to write (default: model-<round>.<format> in the run's folder)",
    )
    export.add_argument(
        "--round", type=int, metavar="N", help="that checkpoint's model (default: the newest one's)"
    )
    export.add_argument("--force", action="store_true", help="replace a file that is there")
    export.set_defaults(call="export:export")
    replay = verbs.add_parser(
        "replay", help="run the clients of a refused round again, step by step"
    )
    replay.add_argument(
        "file", metavar="FILE", help="nonfinite-<round>.json in the folder of a run"
    )
    replay.add_argument(
        "--client",
        type=int,
        metavar="ID",
        help="this client of the cohort (default: those to blame)",
    )
    _plugins(replay)
    replay.set_defaults(call="replay:replay")
    demo = verbs.add_parser(
        "demo", help="train two algorithms on real data, side by side (a minute or two)"
    )
    demo.add_argument(
        "--out", metavar="DIR", help="folder of both runs (default: the next free runs/demo-...)"
    )
    demo.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings to change in both, such as rounds=50",
    )
    _plugins(demo)
    demo.set_defaults(call="demo:demo")


def _looking(verbs: argparse._SubParsersAction) -> None:
    check = verbs.add_parser(
        "check", help="validate a configuration, and tell its costs without running it"
    )
    _config(check)
    check.set_defaults(call="inspect:check")
    known = verbs.add_parser("list", help="what can be named in a configuration")
    known.add_argument("kind", nargs="?", metavar="KIND", help="only these, such as samplers")
    _plugins(known)
    known.set_defaults(call="inspect:list_entries")
    describe = verbs.add_parser(
        "describe",
        help="the card and settings of an algorithm, task, model, ..., or a section of a file",
    )
    describe.add_argument(
        "name", metavar="NAME", help="a name from `fedjax-sim list`, or a section such as engine"
    )
    _plugins(describe)
    describe.set_defaults(call="inspect:describe")
    schema = verbs.add_parser("schema", help="the JSON schema of configuration files, for editors")
    schema.add_argument("--out", metavar="FILE", help="write it to a file")
    _plugins(schema)
    schema.set_defaults(call="inspect:print_schema")


def _data(verbs: argparse._SubParsersAction) -> None:
    data = verbs.add_parser("data", help="prepare data sets, and look at them")
    data.set_defaults(help_of=data)
    inner = data.add_subparsers(metavar="VERB")
    prepare = inner.add_parser(
        "prepare", help="write a data set as a folder that opens in milliseconds"
    )
    prepare.add_argument(
        "source",
        metavar="SOURCE",
        help="a file or folder (see `fedjax-sim data formats`), or the word generated",
    )
    prepare.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="options of the format, such as label=species",
    )
    prepare.add_argument(
        "--out", required=True, metavar="DIR", help="the folder to write; must not exist"
    )
    prepare.add_argument(
        "--format",
        metavar="NAME",
        help="what the source is, where that cannot be told from its name and contents",
    )
    prepare.add_argument(
        "--partition",
        nargs="+",
        metavar=("NAME", "key=value"),
        help="deal all clients' examples out anew",
    )
    prepare.add_argument(
        "--clients",
        type=int,
        metavar="N",
        help="clients of the partition; without one, keep the first N",
    )
    prepare.add_argument(
        "--min-size", type=int, default=1, metavar="N", help="leave clients with fewer examples out"
    )
    prepare.add_argument(
        "--test-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="share of each client's examples for its test",
    )
    prepare.add_argument(
        "--global-test-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="share of the examples for the global test set",
    )
    prepare.add_argument("--seed", type=int, default=0, metavar="N", help="of partition and splits")
    prepare.add_argument("--name", metavar="NAME", help="of the data set (default: the folder's)")
    prepare.set_defaults(call="data:prepare")
    describe = inner.add_parser("describe", help="who has how much of what in a prepared data set")
    describe.add_argument(
        "directory", metavar="DIR", help="a folder that `fedjax-sim data prepare` wrote"
    )
    describe.add_argument("--out", metavar="FOLDER", help="draw it, as PNG files in this folder")
    describe.add_argument("--verify", action="store_true", help="check the hash of every file")
    describe.set_defaults(call="data:describe")
    formats = inner.add_parser(
        "formats", help="what can be prepared, and the options of each format"
    )
    formats.set_defaults(call="data:formats")


def _config(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "config", metavar="CONFIG", help="a TOML file, such as configs/digits_scaffold.toml"
    )
    verb.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings to change, such as algorithm.lr=0.05",
    )
    _plugins(verb)


def _processes(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group(
        "several processes", "start the same command once per process, on one machine or many"
    )
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", help="where the first process is reached"
    )
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process-id", type=int, metavar="I", help="which of them this is, from 0")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="let JAX find all this out: SLURM, Kubernetes, Cloud TPU, Open MPI",
    )


def _run_folder(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="the folder of a run")
    _plugins(verb)


def _plugins(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module, or a .py file, that registers algorithms or other parts (repeatable)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Returns:
      0; 1 where a run could not save its end; 2 for everything that the user can mend, after it
      was said on standard error; 130 and 143 where Ctrl-C and SIGTERM ended it.
    """
    top = parser()
    asked = _parse(top, arguments)
    if asked.version:
        asked.call = "inspect:print_versions"
    if not getattr(asked, "call", None):
        getattr(asked, "help_of", top).print_help()
        return 2
    module, _, name = asked.call.partition(":")
    try:
        return getattr(importlib.import_module(f"fedjax_sim.cli.{module}"), name)(asked) or 0
    except FedError as error:
        return _complain(error)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        return 0
    except OSError as error:
        what, got = (
            f"{error.filename or 'a file'} could not be read or written",
            error.strerror or error,
        )
        return _complain(
            FedError(
                sentence(what, got=got, fix="see to its permissions, and to the room on its disk")
            )
        )
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        got = (str(error).splitlines() or ["no memory"])[0]
        return _complain(
            FedError(
                sentence(
                    "this takes more memory than there is",
                    got=got,
                    fix="make it smaller, or use a larger machine",
                )
            )
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parse(top: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Like ``parse_args``, but overrides may also stand after options."""
    asked, rest = top.parse_known_args(arguments)
    odd = [
        word
        for word in rest
        if word.startswith("-") or "=" not in word or not hasattr(asked, "overrides")
    ]
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
