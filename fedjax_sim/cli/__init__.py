"""The command line.

Parsing imports neither JAX nor anything else that is slow; each verb imports what it needs.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from fedjax_sim.core.errors import FedError, sentence

FORMATS = ("safetensors", "stablehlo", "msgpack", "npz")

Verbs = Any
"""What ``add_subparsers`` returns; argparse keeps its type private."""


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
    for add in (_run, _resume, _evaluate, _export, _replay, _demo):
        add(verbs)
    for add in (_check, _list, _describe, _schema, _data):
        add(verbs)
    return top


# -------------------------------------------------------------------------------- verbs that train


def _run(verbs: Verbs) -> None:
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


def _resume(verbs: Verbs) -> None:
    resume = verbs.add_parser("resume", help="continue a run from its newest checkpoint")
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


def _evaluate(verbs: Verbs) -> None:
    evaluate = verbs.add_parser(
        "evaluate", help="evaluate the newest checkpoint of a run, on all clients too"
    )
    _run_folder(evaluate)
    evaluate.set_defaults(call="run:evaluate")


def _export(verbs: Verbs) -> None:
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
        "--round",
        type=int,
        metavar="N",
        help="that checkpoint's model (default: the newest one's)",
    )
    export.add_argument("--force", action="store_true", help="replace a file that exists")
    export.set_defaults(call="export:export")


def _replay(verbs: Verbs) -> None:
    replay = verbs.add_parser(
        "replay", help="run the clients of a rejected round again, step by step"
    )
    replay.add_argument(
        "file", metavar="FILE", help="nonfinite-<round>.json in the folder of a run"
    )
    replay.add_argument(
        "--client",
        type=int,
        metavar="ID",
        help="this client of the cohort (default: those whose results were not finite)",
    )
    _plugins(replay)
    replay.set_defaults(call="replay:replay")


def _demo(verbs: Verbs) -> None:
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


# --------------------------------------------------------------------------------- verbs that show


def _check(verbs: Verbs) -> None:
    check = verbs.add_parser(
        "check", help="validate a configuration, and show its costs without running it"
    )
    _config(check)
    check.set_defaults(call="inspect:check")


def _list(verbs: Verbs) -> None:
    known = verbs.add_parser("list", help="what can be named in a configuration")
    known.add_argument("kind", nargs="?", metavar="KIND", help="only these, such as samplers")
    _plugins(known)
    known.set_defaults(call="inspect:list_entries")


def _describe(verbs: Verbs) -> None:
    describe = verbs.add_parser(
        "describe",
        help="the card and settings of an algorithm, task, model, ..., or a section of a file",
    )
    describe.add_argument(
        "name", metavar="NAME", help="a name from `fedjax-sim list`, or a section such as engine"
    )
    _plugins(describe)
    describe.set_defaults(call="inspect:describe")


def _schema(verbs: Verbs) -> None:
    schema = verbs.add_parser("schema", help="the JSON schema of configuration files, for editors")
    schema.add_argument("--out", metavar="FILE", help="write it to a file")
    _plugins(schema)
    schema.set_defaults(call="inspect:print_schema")


# -------------------------------------------------------------------------------- verbs about data


def _data(verbs: Verbs) -> None:
    data = verbs.add_parser("data", help="prepare data sets, and look at them")
    data.set_defaults(help_of=data)
    inner = data.add_subparsers(metavar="VERB")
    _prepare(inner)
    _describe_data(inner)
    formats = inner.add_parser(
        "formats", help="what can be prepared, and the options of each format"
    )
    formats.set_defaults(call="data:formats")


def _prepare(verbs: Verbs) -> None:
    prepare = verbs.add_parser(
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
        help="the format, if it cannot be seen from the source's name and contents",
    )
    prepare.add_argument(
        "--partition",
        nargs="+",
        metavar=("NAME", "key=value"),
        help="divide all clients' examples over new clients",
    )
    prepare.add_argument(
        "--clients",
        type=int,
        metavar="N",
        help="clients of the partition; without one, keep the first N",
    )
    _splits(prepare)
    prepare.add_argument("--seed", type=int, default=0, metavar="N", help="of partition and splits")
    prepare.add_argument("--name", metavar="NAME", help="of the data set (default: the folder's)")
    prepare.set_defaults(call="data:prepare")


def _splits(prepare: argparse.ArgumentParser) -> None:
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


def _describe_data(verbs: Verbs) -> None:
    describe = verbs.add_parser(
        "describe", help="clients, examples and labels of a prepared data set"
    )
    describe.add_argument(
        "directory", metavar="DIR", help="a folder that `fedjax-sim data prepare` wrote"
    )
    describe.add_argument("--out", metavar="FOLDER", help="draw it, as PNG files in this folder")
    describe.add_argument("--verify", action="store_true", help="check the hash of every file")
    describe.set_defaults(call="data:describe")


# ------------------------------------------------------------------------------- shared arguments


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
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of the first process")
    group.add_argument("--processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process-id", type=int, metavar="I", help="number of this one, from 0")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="let JAX find all this: SLURM, Kubernetes, Cloud TPU, Open MPI",
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


# --------------------------------------------------------------------------------------- the call


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
      arguments: those after the program's name; those of this process by default.

    Returns:
      The exit status: 0; 1 if a run could not save its end; 2 for errors that the user can fix,
      after a sentence on standard error; 130 and 143 if Ctrl-C or SIGTERM ended the run.
    """
    top = parser()
    args = _parse(top, arguments)
    if args.version:
        args.call = "inspect:print_versions"
    if not getattr(args, "call", None):
        getattr(args, "help_of", top).print_help()
        return 2
    try:
        return _call(args)
    except FedError as error:
        return _print_error(error)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        return 0
    except OSError as error:
        return _print_error(_file_error(error))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _print_error(_memory_error(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _call(args: argparse.Namespace) -> int:
    """Imports the module of a verb and calls its function; ``call`` is ``module:function``."""
    module, _, name = args.call.partition(":")
    return getattr(importlib.import_module(f"fedjax_sim.cli.{module}"), name)(args) or 0


def _parse(top: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Like ``parse_args``, but overrides may also stand after options."""
    args, rest = top.parse_known_args(arguments)
    takes_overrides = hasattr(args, "overrides")
    unknown = [
        word for word in rest if word.startswith("-") or "=" not in word or not takes_overrides
    ]
    if unknown:
        top.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


def _file_error(error: OSError) -> FedError:
    what = f"{error.filename or 'a file'} could not be read or written"
    fix = "check its permissions and the free space on its disk"
    return FedError(sentence(what, got=error.strerror or error, fix=fix))


def _memory_error(error: BaseException) -> FedError:
    first = (str(error).splitlines() or ["no memory"])[0]
    fix = "make it smaller, or use a larger machine"
    return FedError(sentence("this takes more memory than there is", got=first, fix=fix))


def _print_error(error: FedError) -> int:
    """Prints one line per problem, and for a configuration their number. Returns the status."""
    print(error, file=sys.stderr)
    count = len(getattr(error, "problems", ()))
    if count:
        print(f"{count} problem{'s' if count > 1 else ''}; nothing was run.", file=sys.stderr)
    return 2
