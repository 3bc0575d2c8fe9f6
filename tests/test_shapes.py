"""Annotations hold: the checker finds those that do not, and a quick part of the tests runs with it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError, jaxtyped
from torch import Tensor

from tests import shapes

pytest.importorskip("beartype")

QUICK = [  # every layout, mixer, family and operation
    *("tests/test_pointset_clouds.py", "tests/test_pointset_images.py", "tests/layouts", "tests/nn", "tests/ops"),
    *("tests/models/test_coc.py", "tests/models/test_fec.py", "tests/models/test_pointmlp.py"),
    *("tests/models/test_segmenter.py", "tests/data/segment/clouds", "tests/tasks/segment"),
    *("-k", "not test_grid_plan and not test_context_packed and not triton"),  # slow
]


def means(x: Float[Tensor, "N C"], ptr: Int[Tensor, "B+1"]) -> Float[Tensor, "B C"]:
    return torch.stack([x[lo:hi].mean(dim=0) for lo, hi in zip(ptr, ptr[1:], strict=False)])


def rows(x: Float[Tensor, "N C"]) -> Int[Tensor, " N"]:
    return torch.arange(x.shape[1])  # the annotation says x.shape[0]


def share(part: float, of: int | None = None) -> float:
    return part / (of or 1)


def test_annotations_that_hold_pass() -> None:
    x, ptr = torch.randn(5, 3), torch.tensor([0, 2, 5])
    checked = jaxtyped(means, typechecker=shapes.check)
    assert torch.equal(checked(x, ptr), means(x, ptr))
    assert jaxtyped(share, typechecker=shapes.check)(1, of=2) == 0.5  # an int is a float


def test_annotations_that_do_not_hold_are_found() -> None:
    with pytest.raises(TypeCheckError, match="return value"):
        jaxtyped(rows, typechecker=shapes.check)(torch.randn(5, 3))
    with pytest.raises(TypeCheckError, match="'x'"):
        jaxtyped(means, typechecker=shapes.check)(torch.ones(5, 3, dtype=torch.long), torch.tensor([0, 5]))

    def wrong(x: Float[Tensor, "N C"], ptr: Int[Tensor, "B+1"]) -> Float[Tensor, "B C"]:
        return means(x, ptr)[:-1]

    with pytest.raises(TypeCheckError, match="return value"):
        jaxtyped(wrong, typechecker=shapes.check)(torch.randn(5, 3), torch.tensor([0, 2, 5]))


def test_most_of_the_package_is_checked() -> None:
    checked = shapes.checked_modules()
    assert "pointmix.pointset" in checked and len(checked) > 0.7 * len(list(shapes.ROOT.rglob("pointmix/**/*.py")))


def test_a_quick_part_of_the_tests_holds_its_annotations() -> None:
    env = os.environ | {"POINTMIX_CHECK_SHAPES": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *QUICK]
    env.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, cwd=shapes.ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
