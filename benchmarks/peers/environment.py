"""Throw-away environments: one virtual environment per peer in the cache folder, made once, never the project's."""

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
    """The peer's Python, after installing the peer where that has not been done.

    Raises:
      PeerMissing: no interpreter of its version, or an installation that failed.
    """
    digest = hashlib.sha256(
        json.dumps([peer.python, peer.requires, *([peer.alone] if peer.alone else [])]).encode()
    ).hexdigest()[:10]
    folder = cache() / f"{peer.name}-{digest}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation left
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
    torch = [one for one in peer.requires if one.startswith("torch==")]
    if torch:
        # Alone first: where the index has no CPU build, nothing else of it, least of all its CUDA libraries, is downloaded.
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
    """Refuses a torch that was built for CUDA. Reads its version file, for torch may not be importable yet."""
    code = (
        "import importlib.util as u, pathlib, runpy;"
        "f = pathlib.Path(u.find_spec('torch').origin).with_name('version.py');"
        "print(runpy.run_path(str(f)).get('cuda'))"
    )
    cuda = _call([str(python), "-c", code], "torch has no version").strip()
    if cuda != "None":
        raise PeerMissing(
            f"only a CUDA build of torch ({cuda}) is to be had here; offer pip a CPU wheel, such as with PIP_FIND_LINKS"
        )


@functools.cache
def interpreter(version: str) -> str:
    """Path of an interpreter of that version, ``"3.12"``, on the PATH, in pyenv's folder, or known to uv.

    Raises:
      PeerMissing: there is none.
    """
    pyenv = (
        pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv") / "versions"
    )
    found = sorted(
        pyenv.glob(f"{version}.*/bin/python"),
        key=lambda path: int(path.parts[-3].split(".")[-1]) if _plain(path) else -1,
    )
    candidates = [
        shutil.which(f"python{version}"),
        *(str(path) for path in reversed(found)),
        _of_uv(version),
    ]
    for path in filter(None, candidates):
        if _is(path, version):
            return path
    raise PeerMissing(f"needs Python {version}, which is not installed")


def _plain(path: pathlib.Path) -> bool:
    return path.parts[-3].split(".")[-1].isdigit()


def _of_uv(version: str) -> str | None:
    if not shutil.which("uv"):
        return None
    found = subprocess.run(["uv", "python", "find", version], capture_output=True, text=True)
    return found.stdout.strip() or None


def _is(path: str, version: str) -> bool:
    """Whether it runs and has that version: a shim of pyenv is on the PATH even where its version is switched off."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        return (
            subprocess.run(
                [path, "-c", code], capture_output=True, text=True, timeout=30
            ).stdout.strip()
            == version
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def outside() -> dict[str, str]:
    """Our environment variables, without the project's own packages and settings of JAX: no peer must see them."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "XLA_FLAGS")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith("JAX_")
    }


def _call(command: list[str], failed: str) -> str:
    """Stdout of a command.

    Raises:
      PeerMissing: it failed or took too long.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_LIMIT, env=outside()
        )
    except subprocess.TimeoutExpired:
        raise PeerMissing(f"{failed}: not done after {INSTALL_LIMIT} s") from None
    if done.returncode:
        raise PeerMissing(f"{failed}: {last_line(done.stderr or done.stdout)}")
    return done.stdout


def last_line(text: str) -> str:
    """The last line that says something: an error's, where there is one, at most 200 characters."""
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
