"""Settings and arguments out of their range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import pointmix
from pointmix import PointSet
from pointmix.engine.flags import parse
from pointmix.tasks.classify_images import ClassifyImagesConfig, MixConfig
from pointmix.tasks.config import OptimConfig

NAN = float("nan")
SMALL = dict(depths=(1, 1, 1, 1), dims=(4, 4, 4, 4), heads=2, head_dim=2, num_classes=2)

OPTIM: list[tuple[str, object]] = [
    ("clip_grad", -1),
    ("ema_decay", 5),
    ("ema_decay", -1),
    ("warmup_epochs", -3),
    ("lr", -1),
    ("lr", NAN),
    ("betas", (2, 2)),
    ("weight_decay", -1),
    ("sched", "x"),
    ("opt", "x"),
]
MIX: list[tuple[str, object]] = [
    ("mixup", -1),
    ("cutmix", -1),
    ("switch_prob", 2),
    ("smoothing", 2),
    ("smoothing", -1),
]
RUN: list[tuple[str, object]] = [
    ("save_every_seconds", -1),
    ("seed", -1),
    ("seeds", (-1, 2)),
    ("epochs", None),
    ("epochs", 1.5),
    ("batch_size", None),
    ("grad_accum_steps", None),
    ("log_every", None),
]
MODEL: list[tuple[str, object]] = [
    ("heads", 0),
    ("heads", -1),
    ("heads", 0.5),
    ("head_dim", 0),
    ("head_dim", -1),
    ("depths", "abcd"),
    ("dims", (0, 4, 4, 4)),
    ("num_classes", -1),
    ("in_chans", -1),
    ("drop_path_rate", -1),
    ("drop_path_rate", 2),
]
POINTS = {
    "array of objects": lambda: PointSet.from_image(np.array([[None]])),
    "array of text": lambda: PointSet.from_image(np.array([["a"]])),
    "ptr with a gap": lambda: PointSet(torch.rand(3, 2), torch.rand(3, 1), [0, 2]),
    "points in text": lambda: PointSet.from_points("abc"),
    "points in nothing": lambda: PointSet.from_points(None),
    "a depth scale in text": lambda: PointSet.from_rgbd(torch.rand(3, 4, 5), torch.ones(4, 5), depth_scale="x"),
}
FILES = {
    "nothing for a number": "epochs: null\n",
    "a number for a section": "model: 3\n",
}


@pytest.mark.parametrize("key, value", OPTIM)
def test_optimizers(key, value, refused):
    assert key in refused(lambda: ClassifyImagesConfig(optim=OptimConfig(**{key: value})))


@pytest.mark.parametrize("key, value", MIX)
def test_mixing(key, value, refused):
    assert key in refused(lambda: ClassifyImagesConfig(mix=MixConfig(**{key: value})))


@pytest.mark.parametrize("key, value", RUN)
def test_runs(key, value, refused):
    assert key in refused(lambda: ClassifyImagesConfig(**{key: value}))


@pytest.mark.parametrize("key, value", MODEL)
def test_networks(key, value, refused):
    refused(lambda: pointmix.create_model("coc_tiny", **SMALL | {key: value}))


@pytest.mark.parametrize("case", POINTS)
def test_points(case, refused):
    refused(POINTS[case])


@pytest.mark.parametrize("case", FILES)
def test_configurations(case, folder, refused):
    Path("a.yaml").write_text(FILES[case])
    refused(lambda: parse(["--config=a.yaml"], ClassifyImagesConfig))
