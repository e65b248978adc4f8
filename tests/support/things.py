"""A folder with one of each thing that a command may be given."""

from pathlib import Path

from fedjax_sim.cli import main

SMALL = """rounds = 1
[task]
name = "quadratic"
[algorithm]
name = "scaffold"
[sampler]
kind = "full"
"""


def make(root: Path) -> Path:
    """A configuration, a run of it, one whose client memory is on the host, prepared data, a model,
    and what is none of these.
    """
    (root / "small.toml").write_text(SMALL)
    assert main(["run", str(root / "small.toml"), "--out", str(root / "run")]) == 0
    assert (
        main(
            [
                "run",
                str(root / "small.toml"),
                "engine.client_memory=host",
                "--out",
                str(root / "kept"),
            ]
        )
        == 0
    )
    assert (
        main(["data", "prepare", "generated", "--clients", "3", "--out", str(root / "data")]) == 0
    )
    assert main(["export", str(root / "run"), "--out", str(root / "model")]) == 0
    (root / "text").write_text("hello\n")
    (root / "binary").write_bytes(bytes(range(256)) * 9)
    (root / "empty").mkdir()
    (root / "nothing").symlink_to(root / "nowhere")
    (root / "loop").symlink_to(root / "loop")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
