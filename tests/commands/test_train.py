"""`pointmix train`: which task a word, a recipe or --task names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pointmix.commands.train import KINDS, main
from pointmix.engine.shipped import find


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Task and basis of each training that would start."""
    seen: list[tuple[str, str]] = []

    def train_all(cfg: Any, *, recipe: str) -> None:
        seen.append((type(cfg).__name__, recipe))

    monkeypatch.setattr("pointmix.engine.seeds.train_all", train_all)
    return seen


@pytest.mark.parametrize(
    "argv, expected",
    [
        ([], ("ClassifyImagesConfig", "image/coc_digits")),
        (["image"], ("ClassifyImagesConfig", "image/coc_digits")),
        (["points", "--epochs=1"], ("ClassifyPointsConfig", "points/coc_shapes")),
        (["segment"], ("SegmentConfig", "segment/digit_scenes")),
        (["detect"], ("DetectConfig", "detect/digit_objects")),
        (["--config", "image/coc_cifar10", "--data.root=DIR"], ("ClassifyImagesConfig", "image/coc_cifar10")),
        (["--task", "classify_points"], ("ClassifyPointsConfig", "defaults of pointmix train")),
        (["--task=segment", "--config=segment/scenes3d"], ("SegmentConfig", "segment/scenes3d")),
    ],
)
def test_what_is_trained(argv: list[str], expected: tuple[str, str], trained: list[tuple[str, str]]) -> None:
    assert main(argv) == 0 and trained == [expected]


@pytest.mark.parametrize(
    "argv, message",
    [
        (
            ["images"],
            "no kind of training is called 'images', expected one of image, points, segment, detect, or --task",
        ),
        (["--config=points/small"], "points/small is a recipe of pointmix train points, not of pointmix train image"),
        (["segment", "--config", "image/coc_digits"], "image/coc_digits is a recipe of pointmix train image, not of"),
        (["segment", "--config", "mine.yaml"], "mine.yaml is a recipe of pointmix train image, not of"),
        (["--config=coc_cifar1"], "no recipe of that name, did you mean image/coc_cifar10?"),
        (["--config=configs/image/coc_digits.yaml"], "no recipe of that name, did you mean image/coc_digits?"),
        (["points", "--task=segment"], "task"),
    ],
)
def test_errors_are_one_line(
    argv: list[str],
    message: str,
    trained: list[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(find("image/coc_digits"), "mine.yaml")
    assert main(argv) == 2 and not trained
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_help_without_a_word_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: pointmix train [image | points") and all(
        f"\npointmix train {k}" in out for k in KINDS
    )
