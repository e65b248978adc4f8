import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fedjax_sim as fs
from fedjax_sim.algorithms import REGISTRY


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout


@pytest.mark.parametrize("name", fs.__all__)
def test_every_public_name_resolves_and_stays(name: str):
    assert getattr(fs, name) is getattr(fs, name)


def test_names_are_the_objects_of_their_modules():
    from fedjax_sim import federate, simulate
    from fedjax_sim.engine.federate import federate as this
    from fedjax_sim.experiments.simulate import simulate as that

    assert (federate, simulate) == (this, that)
    assert fs.data.Population is fs.Population


def stub_imports() -> dict[str, str]:
    """Public name to the module that the stub takes it from."""
    stub = ast.parse(Path(fs.__file__ or "").with_suffix(".pyi").read_text())
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_what_editors_see_is_what_there_is():
    seen = stub_imports()
    assert set(seen) | {"__version__"} == {*fs.__all__, *REGISTRY}
    for name in fs.__all__:
        if name != "__version__" and name not in fs.MODULES:
            module, _, attribute = seen[name].rpartition(".")
            assert getattr(fs, name) is getattr(sys.modules[module], attribute)


@pytest.mark.parametrize(
    ("old", "new"),
    [("batching", "local_work"), ("keep_programs", "enable_compilation_cache")],
)
def test_a_name_of_an_earlier_version_says_its_new_one(old: str, new: str):
    with pytest.raises(AttributeError, match=f"it is called '{new}' now"):
        getattr(fs, old)


@pytest.mark.parametrize("name", REGISTRY)
def test_algorithms_go_by_their_registered_names(name: str):
    assert getattr(fs, name) is REGISTRY[name].factory
    assert name in dir(fs)
    assert name not in fs.__all__


def test_unknown_names_are_missing_in_the_usual_way():
    assert not hasattr(fs, "fedavgg")
    assert not hasattr(fs, "__wrapped__")
    with pytest.raises(ImportError, match="cannot import name 'nobody'"):
        exec("from fedjax_sim import nobody")


def test_an_error_inside_a_submodule_is_not_taken_for_a_missing_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "broken.py").write_text("import no_such_library")
    monkeypatch.setattr(fs, "__path__", [*fs.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        _ = fs.broken


def test_importing_the_package_imports_nothing_else():
    code = "import sys, fedjax_sim; print(*sys.modules)"
    loaded = {
        module
        for module in python(code).split()
        if module.startswith(("fedjax", "jax", "numpy", "flax", "optax", "rich", "pydantic"))
    }
    assert loaded == {"fedjax_sim"}


def test_no_submodule_hides_a_function_of_its_name():
    package = Path(fs.__file__).parent
    modules = {path.stem for path in package.glob("*.py")} | {
        path.name for path in package.iterdir() if path.is_dir()
    }
    assert not {name for name in fs.__all__ if name in modules and callable(getattr(fs, name))}
