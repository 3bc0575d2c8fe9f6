"""What pyproject.toml declares is what the package imports, and its modules import each other in no circle.

import-linter checks the layers and circles of folders (`make lint`); here are circles of single modules.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

import pointmix

ROOT = Path(__file__).parents[1]
IMPORT_NAMES = {"pillow": "PIL", "pyyaml": "yaml", "scikit_learn": "sklearn"}  # others are those of their distribution
TOOLS = set("beartype geoopt import_linter mypy playwright pycocotools pytest pytest_xdist ruff setuptools".split())


def names(requirements: list[str]) -> set[str]:
    """What requirements are imported as."""
    found = [re.match(r"[\w-]+", r)[0].lower().replace("-", "_") for r in requirements]
    return {IMPORT_NAMES.get(name, name) for name in found}


@pytest.fixture(scope="module")
def project() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def imports(body: list[ast.stmt], *, always: bool) -> Iterator[str]:
    """Modules that are imported, or only those that importing this file always imports."""
    for node in body if always else [n for statement in body for n in ast.walk(statement)]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def sources() -> list[Path]:
    return sorted((ROOT / "pointmix").rglob("*.py")) + sorted((ROOT / "scripts").glob("*.py"))


def test_what_is_always_imported_is_a_dependency(project: dict) -> None:
    known = names(project["dependencies"]) | set(sys.stdlib_module_names) | {"pointmix"}
    fast = ROOT / "pointmix/ops"  # modules of backends, imported when their library is installed
    for path in sources():
        if fast not in path.parents:
            unknown = {name.split(".")[0] for name in imports(ast.parse(path.read_bytes()).body, always=True)} - known
            assert not unknown, f"{path.relative_to(ROOT)} imports {unknown}, which pyproject.toml does not require"


def test_every_requirement_is_used(project: dict) -> None:
    trees = [ast.parse(path.read_bytes()) for path in sources()]
    used = {part for tree in trees for name in imports(tree.body, always=False) for part in name.split(".")}
    used |= {
        n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }
    extras = project["optional-dependencies"]
    required = names(project["dependencies"]) | names(sum((v for k, v in extras.items() if k != "test"), []))
    assert not required - used
    assert names(extras["test"]) - {"pointmix"} == TOOLS


def test_pins_are_within_the_ranges(project: dict) -> None:
    """requirements.txt pins every dependency, each within the range of pyproject.toml."""
    requirements = pytest.importorskip("packaging.requirements")
    lines = [line.split("  #")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    pins = [requirements.Requirement(line) for line in lines if line and not line.startswith("#")]
    extras = project["optional-dependencies"]
    for declared in map(requirements.Requirement, project["dependencies"] + extras["test"]):
        versions = [next(iter(p.specifier)).version for p in pins if p.name == declared.name]
        assert versions or declared.name == "pointmix", f"{declared.name} is not pinned"
        assert all(declared.specifier.contains(v) for v in versions), f"{declared} does not take {versions}"


def test_the_version_is_that_of_the_package(project: dict) -> None:
    assert project["dynamic"] == ["version"]
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert first[1] == citation["version"] == pointmix.__version__
    assert all(paper["title"] and paper["authors"] and paper["year"] for paper in citation["references"])


def test_no_circle_of_imports() -> None:
    """Imports inside functions count, and so does the __init__ of each package that an import runs."""
    grimp = pytest.importorskip("grimp")

    def packages(module: str) -> set[str]:
        parts = module.split(".")
        return {".".join(parts[:i]) for i in range(2, len(parts) + 1)}

    graph = grimp.build_graph("pointmix", cache_dir=None)
    found = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    needs = {m: {p for other in others for p in {other} | packages(other) - packages(m)} for m, others in found.items()}
    TopologicalSorter(needs).prepare()  # CycleError names the circle
