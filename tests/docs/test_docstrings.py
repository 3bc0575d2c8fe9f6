"""Docstrings as the documentation site reads them, and the names that its API pages list."""

from __future__ import annotations

import ast
import functools
import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = sorted((ROOT / "docs/reference").glob("*.md"))
Documented = ast.FunctionDef | ast.ClassDef


@functools.cache
def documented() -> list[tuple[str, Documented, list[str]]]:
    """Functions and classes with the lines of their docstrings."""
    found = []
    for path in sorted((ROOT / "pointmix").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                found.append((f"{path.relative_to(ROOT)}, {node.name}", node, text.splitlines()))
    return found


def parameters(node: Documented) -> set[str]:
    """Names that `Args:` may have: arguments, or the fields of a dataclass or NamedTuple."""
    if isinstance(node, ast.FunctionDef):
        args = node.args
        named = [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]
        return {arg.arg for arg in named}
    made = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    if made:
        return parameters(made[0])
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    inherited = [parameters(other) for _, other, _ in documented() if other.name in bases and other is not node]
    return {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}.union(*inherited)


def test_sections_begin_after_an_empty_line() -> None:
    wrong = [
        f"{name}: {line}"
        for name, _, lines in documented()
        for before, line in zip(lines, lines[1:], strict=False)
        if re.fullmatch(r"(Args|Returns|Yields|Raises):", line) and before.strip()
    ]
    assert not wrong


def test_arguments_exist() -> None:
    """A group such as "mean, std:" describes several."""
    wrong = []
    for name, node, lines in documented():
        if "Args:" in lines and (known := parameters(node)):
            section = lines[lines.index("Args:") + 1 :]
            end = next((i for i, line in enumerate(section) if line and not line.startswith(" ")), len(section))
            for match in filter(None, (re.match(r"    (\*{0,2}\w[\w*, ]*):", line) for line in section[:end])):
                wrong += [f"{name}: {a}" for a in match[1].replace("*", "").split(", ") if a not in known]
    assert not wrong


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.stem)
def test_the_api_pages_name_what_exists(page: Path) -> None:
    for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE):
        found = pkgutil.resolve_name(name)
        assert found.__doc__, f"{name} has no docstring"
