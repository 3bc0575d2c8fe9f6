from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

import numba
import pytest

from pointmix.ops.kernels import jit, tiles

MODULE = """
from pointmix.ops.kernels import jit

@jit.compiled
def twice(x):
    return 2 * x

@jit.compiled
def half(x):
    return x / 2
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where numba keeps what it compiles."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(file: Path) -> ModuleType:
    """The module as another process has it, with nothing compiled."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def damage(folder: Path, name: str) -> None:
    files = list(folder.rglob(f"{name}.*.nbi"))
    assert files
    for file in files:
        file.write_bytes(b"")


def test_damaged_files_of_compiled_code_cost_time_and_no_more(tmp_path, folder):
    (tmp_path / "small.py").write_text(MODULE)

    def run() -> None:
        module = load(tmp_path / "small.py")
        assert [jit.call(module, name, 3.0) for name in ("twice", "half")] == [6.0, 1.5]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()
    damage(folder, "small")
    with pytest.warns(RuntimeWarning, match=f"numba cannot use its files small.*.nb.* in {folder}.*EOFError") as told:
        run()
    assert len(told) == 1


def test_nor_do_those_of_callbacks(tmp_path, folder):
    arguments = ", ".join(f"a{i}" for i in range(len(jit.SIGNATURE.args)))
    (tmp_path / "nothing.py").write_text(f"def work({arguments}):\n    pass\n")
    compiled = tiles._compiled.__wrapped__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(load(tmp_path / "nothing.py").work)
    damage(folder, "nothing")
    with pytest.warns(RuntimeWarning, match=f"its files nothing.*.nb.* in {folder}.*EOFError") as told:
        assert compiled(load(tmp_path / "nothing.py").work).address
    assert len(told) == 1


def test_without_a_folder_it_is_compiled_in_memory(monkeypatch):
    def refuse(function, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return function

    monkeypatch.setattr(jit, "njit", refuse)
    assert jit.compiled(len) is len


def test_no_callback_uses_a_compiled_function_that_other_processes_cannot_name(folder):
    @jit.inlined
    def nothing() -> None:
        pass

    def work(at) -> None:
        nothing()

    with pytest.raises(TypeError, match="work uses the compiled function nothing of an enclosing function"):
        jit.compiled_callback(work, __file__)
