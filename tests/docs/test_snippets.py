"""Every Python snippet of README.md and docs/ runs, page by page and in order."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pointmix.data.clouds import source as clouds
from pointmix.data.detect import source as objects
from pointmix.data.images import source as images
from pointmix.engine.checkpoint import FINAL, save_model
from pointmix.engine.flags import parse
from pointmix.engine.run import run_info
from pointmix.io import registry
from pointmix.ops import dispatch
from pointmix.tasks import base
from pointmix.tasks.classify_images import ClassifyImagesConfig

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIGITS_RUN = "runs/coc_digits"  # some pages go on with this run
SKIP = "# not executed: "  # first line of a snippet that cannot run here, with the reason


def snippets(page: Path) -> list[tuple[int, str]]:
    """Code of a page, and in which line it starts, from 0."""
    text = page.read_text(encoding="utf-8")
    return [(text[: match.start(1)].count("\n"), match[1]) for match in SNIPPET.finditer(text)]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Files in the current folder that snippets read, and the variables that they expect."""
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{x:.4f} {y:.4f} {z:.4f}" for x, y, z in torch.rand(64, 3).tolist())
    header = (
        "ply\nformat ascii 1.0\nelement vertex 64\nproperty float x\nproperty float y\nproperty float z\nend_header"
    )
    Path("scan.ply").write_text(f"{header}\n{rows}\n")
    return {"rgb": torch.rand(3, 480, 640), "depth": torch.rand(480, 640) + 0.5}


def write_digits_run(folder: Path) -> None:
    """What training on digits leaves for prediction, with random weights."""
    task = base.get_task("classify_images")
    cfg = parse([f"--config={ROOT}/configs/image/coc_digits.yaml"], ClassifyImagesConfig)
    info = run_info(task, cfg, task.build_splits(cfg, rank=0, world_size=1))
    save_model(folder / FINAL, task.build_model(info), info)


@pytest.fixture
def registries() -> Iterator[None]:
    """Registries are afterwards as they were before."""
    for task in base.list_tasks():  # a module that is imported within the test would not register its task again
        base.get_task(task)
    implementations = [operation.implementations for operation in dispatch.OPERATIONS.values()]
    sources = [clouds.SOURCES._entries, images.SOURCES._entries, objects.DETECT_SOURCES._entries]
    dicts = [dispatch.BACKENDS, *implementations, registry.CLOUD_READERS, base._TASKS, *sources]
    before = [dict(entries) for entries in dicts]
    yield
    for entries, old in zip(dicts, before, strict=True):
        entries.clear()
        entries.update(old)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if snippets(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_snippets_run(page: Path, inputs: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippets of a page are one module, so that later ones use what earlier ones define."""
    module = types.ModuleType(f"snippets_of_{page.stem.lower()}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(module).update(inputs)
    if any(DIGITS_RUN in code for _, code in snippets(page)):
        write_digits_run(Path(DIGITS_RUN))
    for line, code in snippets(page):
        if not code.startswith(SKIP):
            exec(compile("\n" * line + code, page, "exec"), vars(module))


def test_a_snippet_that_is_not_executed_says_why() -> None:
    for page in PAGES:
        for line, code in snippets(page):
            reason = code.splitlines()[0].removeprefix(SKIP) if code.startswith(SKIP) else None
            assert reason is None or len(reason) > 10, f"{page.name}, line {line}: the reason is missing"


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


def test_paths_exist() -> None:
    """Files and folders of the repository that pages name in backticks."""
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]:
        for path in re.findall(
            r"`((?:pointmix|scripts|configs|docs|benchmarks|tests|datasets)/[\w./-]+)`", page.read_text("utf-8")
        ):
            assert "OPERATION" in path or (ROOT / path).exists(), f"{page.name} names {path}, which does not exist"


def test_the_tables_of_results_agree() -> None:
    """README.md repeats some of docs/results.md."""
    here = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Results\n")[2].partition("\n## ")[0]
    rows = [line for line in readme.splitlines() if line.startswith("|")]
    assert len(rows) > 10 and not [row for row in rows if row not in here.splitlines()]
