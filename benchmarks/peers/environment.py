"""Environments of peers: one virtual environment per peer in the cache folder, made once."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess

from benchmarks.peers import Peer

INSTALL_LIMIT = 1200
"""Seconds that one installation may take."""


class PeerMissing(Exception):
    """A peer that cannot be installed or run here; its text is the reason, one line."""


def cache() -> pathlib.Path:
    """The folder of all peers' environments."""
    home = os.environ.get("FEDJAX_SIM_CACHE") or pathlib.Path.home() / ".cache" / "fedjax_sim"
    return pathlib.Path(home) / "peers"


def prepare(peer: Peer) -> pathlib.Path:
    """Installs the peer if necessary; returns the path of its Python.

    Raises:
      PeerMissing: if there is no interpreter of its version, or the installation failed.
    """
    requirements = [peer.python, peer.requires, *([peer.alone] if peer.alone else [])]
    digest = hashlib.sha256(json.dumps(requirements).encode()).hexdigest()[:10]
    folder = cache() / f"{peer.name}-{digest}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)  # files of an interrupted installation
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            _install(peer, folder, python)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        complete.write_text(
            _call([str(python), "-m", "pip", "freeze"], "pip could not list what it installed")
        )
    return python


def _install(peer: Peer, folder: pathlib.Path, python: pathlib.Path) -> None:
    _call(
        [interpreter(peer.python), "-m", "venv", str(folder)],
        f"no virtual environment of Python {peer.python}",
    )
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    torch = [requirement for requirement in peer.requires if requirement.startswith("torch==")]
    if torch:
        # First without its requirements: if the index has no CPU build, nothing else is downloaded,
        # in particular no CUDA libraries.
        _call([*pip, "--no-deps", *torch], f"{torch[0]} does not install")
        _only_cpu(python)
    _call([*pip, *peer.requires], f"{' '.join(peer.requires)} does not install")
    if peer.alone:
        _call(
            [*pip, "--no-deps", "--ignore-requires-python", *peer.alone],
            f"{' '.join(peer.alone)} does not install",
        )
    if torch:
        _only_cpu(python)


def _only_cpu(python: pathlib.Path) -> None:
    """Refuses a torch that was built for CUDA.

    Reads torch's version file, because torch may not be importable yet.
    """
    code = (
        "import importlib.util as u, pathlib, runpy;"
        "f = pathlib.Path(u.find_spec('torch').origin).with_name('version.py');"
        "print(runpy.run_path(str(f)).get('cuda'))"
    )
    cuda = _call([str(python), "-c", code], "torch has no version").strip()
    if cuda != "None":
        raise PeerMissing(
            f"only a CUDA build of torch ({cuda}) is available here; give pip a CPU wheel, such as "
            "with PIP_FIND_LINKS"
        )


@functools.cache
def interpreter(version: str) -> str:
    """Path of an interpreter: on the PATH, in pyenv's folder, or known to uv.

    Args:
      version: ``"3.12"``.

    Raises:
      PeerMissing: if there is none.
    """
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv")
    paths = sorted((pyenv / "versions").glob(f"{version}.*/bin/python"), key=_patch_version)
    candidates = [
        shutil.which(f"python{version}"),
        *(str(path) for path in reversed(paths)),
        _of_uv(version),
    ]
    for path in filter(None, candidates):
        if _has_version(path, version):
            return path
    raise PeerMissing(f"needs Python {version}, which is not installed")


def _patch_version(path: pathlib.Path) -> int:
    """7 of ``versions/3.12.7/bin/python``; -1 if it is not a number."""
    patch = path.parts[-3].split(".")[-1]
    return int(patch) if patch.isdigit() else -1


def _of_uv(version: str) -> str | None:
    if not shutil.which("uv"):
        return None
    done = subprocess.run(["uv", "python", "find", version], capture_output=True, text=True)
    return done.stdout.strip() or None


def _has_version(path: str, version: str) -> bool:
    """Whether an interpreter runs and has this version.

    A shim of pyenv is on the PATH even if its version is disabled.
    """
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == version


def peer_environment() -> dict[str, str]:
    """Our environment variables without the project's packages and the settings of JAX."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "XLA_FLAGS")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in hidden and not name.startswith("JAX_")
    }


def _call(command: list[str], failed: str) -> str:
    """Runs a command; returns its stdout.

    Args:
      command: program and arguments.
      failed: the beginning of the error's text.

    Raises:
      PeerMissing: if it failed or took too long.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_LIMIT, env=peer_environment()
        )
    except subprocess.TimeoutExpired:
        raise PeerMissing(f"{failed}: not done after {INSTALL_LIMIT} s") from None
    if done.returncode:
        raise PeerMissing(f"{failed}: {last_line(done.stderr or done.stdout)}")
    return done.stdout


def last_line(text: str) -> str:
    """The last line that is an error's or at least a message, at most 200 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    useful = [
        line
        for line in lines
        if line[0].isalnum() and not line.startswith(("WARNING", "[notice]", "note:", "hint:"))
    ]
    errors = [
        line
        for line in useful
        if re.match(r"ERROR: \S|[\w.]*(Error|Exception)\w*: \S|.*: can't open file", line)
    ]
    return (errors or useful or lines or ["no message"])[-1][:200]
