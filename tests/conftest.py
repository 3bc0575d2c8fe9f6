from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests import shapes

if os.environ.get("POINTMIX_CHECK_SHAPES"):
    shapes.install(shapes.checked_modules())  # before the import of the package

from pointmix import PointSet  # noqa: E402

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which compiling a model does too


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("PYTEST_XDIST_WORKER"):  # the workers share the cores
        torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("POINTMIX_CHECK_SHAPES"):
        selected = shapes.select(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in selected])
        items[:] = selected
    items.sort(key=lambda item: item.path.name != "test_shapes.py")  # one of its tests is the longest: not at the end


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden outputs."""
    folder = os.environ.get("POINTMIX_GOLDEN", "")
    if not folder:
        pytest.skip("POINTMIX_GOLDEN does not name the folder of golden outputs")
    if not Path(folder).is_dir():
        pytest.fail(f"POINTMIX_GOLDEN names {folder}, which is no folder")
    return Path(folder)


@pytest.fixture
def ragged() -> PointSet:
    """Three sets of different lattices in float64: a part of 13x9, all of 4x6, and a single pixel of 5x5."""
    images = [torch.randn(3, *size, dtype=torch.float64) for size in [(13, 9), (4, 6), (5, 5)]]
    mask = torch.rand(13, 9) < 0.5
    pixel = torch.zeros(5, 5, dtype=torch.bool)
    pixel[1, 3] = True
    return PointSet.from_images(images, [mask, None, pixel])


class Sizes(TorchDispatchMode):
    """Numbers of elements of everything that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.elements += [t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        return out


@pytest.fixture
def sizes() -> type[Sizes]:
    """A context in which the sizes of all results are seen, for tests of memory."""
    return Sizes


@pytest.fixture
def shuffle() -> Callable[[PointSet], tuple[PointSet, torch.Tensor]]:
    """The points of a sparse grid or cloud in another order within each set, and the order."""

    def shuffled(points: PointSet) -> tuple[PointSet, torch.Tensor]:
        layout = points.layout
        order = torch.cat([lo + torch.randperm(hi - lo) for lo, hi in zip(points.ptr, points.ptr[1:], strict=False)])
        moved = layout.take(order, slice(None))
        return PointSet(points.pos[order], points.feat[order], points.ptr, moved), order

    return shuffled
