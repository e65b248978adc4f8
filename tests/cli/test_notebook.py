"""The notebook's source is quickstart.py.

``jupytext --to ipynb notebooks/quickstart.py`` writes quickstart.ipynb.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCE, NOTEBOOK = FOLDER / "quickstart.py", FOLDER / "quickstart.ipynb"

RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
finally:
    nbformat.write(notebook, sys.argv[2])
"""


def cells(notebook: dict) -> list[tuple[str, str]]:
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]


def code() -> list[str]:
    return [source for kind, source in cells(json.loads(NOTEBOOK.read_text())) if kind == "code"]


def test_the_notebook_is_its_source():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of jupytext and nbformat are not ours
        import jupytext

        made = jupytext.read(SOURCE)
    assert cells(json.loads(NOTEBOOK.read_text())) == cells(made)


def test_the_notebook_is_kept_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_five_cells_of_code_and_a_badge():
    assert len(code()) == 5
    assert "colab-badge.svg" in NOTEBOOK.read_text()
    assert f"blob/main/notebooks/{NOTEBOOK.name}" in NOTEBOOK.read_text()


def test_the_installation_keeps_the_jax_that_is_there(monkeypatch: pytest.MonkeyPatch):
    """The first cell, up to the import, without the package; pip is recorded instead of run."""
    import importlib.metadata
    import importlib.util

    lines = (
        code()[0]
        .partition("import jax\n")[0]
        .replace("%pip ", "asked = '")
        .replace("{keep}", "' + keep")
    )
    there, found = importlib.util.find_spec, {}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "fedjax_sim" else there(name)
    )
    exec(lines, found)
    version = importlib.metadata.version
    assert (
        found["asked"] == f"install -q fedjax-sim jax=={version('jax')} jaxlib=={version('jaxlib')}"
    )
    monkeypatch.undo()
    exec(lines, found := {})
    assert "asked" not in found


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path):
    """In another process: Jupyter's warnings do not count, and its kernel has its own JAX."""
    done = tmp_path / "done.ipynb"
    env = {
        **os.environ,
        "FEDJAX_SIM_NOTEBOOK_ROUNDS": "6",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path),
    }
    made = subprocess.run(
        [sys.executable, "-c", RUN, NOTEBOOK, done],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    outputs = [
        out
        for cell in json.loads(done.read_text())["cells"]
        if cell["cell_type"] == "code"
        for out in cell["outputs"]
    ]
    text = "".join("".join(out["text"]) for out in outputs if out.get("name") == "stdout")
    assert "FedAvg: " in text
    assert "SCAFFOLD: " in text
    assert "after 6 rounds" in text
    assert any("image/png" in out.get("data", {}) for out in outputs)
