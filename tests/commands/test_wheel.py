"""The wheel holds the package, its data files and all recipes, and starts the command."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from: setuptools writes into the folder, and takes what an earlier build left there."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pointmix", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def build(source: Path, kind: str, out: Path) -> Path:
    """Build in a process of its own, without isolation, which would download setuptools."""
    pytest.importorskip("setuptools", "77", reason="an older setuptools cannot build the package")
    code = [sys.executable, "-c", BUILD.format(kind), str(out)]
    done = subprocess.run(code, cwd=source, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Package would be ignored" not in done.stderr, done.stderr
    [built] = [file for file in out.iterdir() if file.suffix in (".whl", ".gz")]
    return built


def test_wheel(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(source, "wheel", tmp_path)) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
        points = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt")]
    recipes = {f"pointmix/{file.relative_to(source)}" for file in (source / "configs").rglob("*.yaml")}
    package = {str(file.relative_to(source)) for file in (source / "pointmix").rglob("*") if file.is_file()}
    assert inside == package | recipes and "pointmix/configs/image/coc_digits.yaml" in recipes
    assert "pointmix = pointmix.commands.main:main" in points[0]


def test_source_archive_holds_the_recipes(source: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(build(source, "sdist", tmp_path), tmp_path)
    [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
    for name in ("configs", "pointmix"):
        there, here = (
            {str(file.relative_to(top)) for file in top.rglob("*.*")} for top in (folder / name, source / name)
        )
        assert there == here
