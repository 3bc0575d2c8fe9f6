"""Pictures and pages of the backbones of segmenters and detectors."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.models.detector import create_detector
from pointmix.models.segmenter import create_segmenter
from pointmix.tasks.base import get_task
from pointmix.tasks.page import is_page

SMALL = dict(
    dims=(8, 8), depths=(1, 1), mlp_ratios=(2, 2), windows_per_side=(2, 1), centers_per_side=(2, 2), heads=1, head_dim=4
)
IMAGES = {"source": "scenes", "in_chans": 3, "mean": [0.5], "std": [0.2]}
CLOUDS = {"source": "files", "root": ".", "classes": ["a", "b"], "features": ["rgb"], "feature_scale": {"rgb": 1.0}}
NAMES = ["a", "b"]


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.eye(32, 48, dtype=np.uint8)[:, ::-1] + np.eye(32, 48, dtype=np.uint8)).save(tmp_path / "m.png")
    np.savez(tmp_path / "a.npz", xyz=rng.random((200, 3)), rgb=rng.random((200, 3)))
    return tmp_path


def arguments(files, name, out, **given):
    flags = dict(mask=None, depth=None, depth_scale=None, intrinsics=None, label=None, clusters=None, epochs=[])
    flags |= dict(nan=None, index=None, columns=None)
    flags |= dict(run="RUN", checkpoint=None, device="cpu", file=str(files / name), out=str(files / out))
    return Namespace(**(flags | given))


def views(monkeypatch):
    from pointmix.explain.page import build

    seen = []
    monkeypatch.setattr(build, "fitted", lambda view: seen.append(view) or {})
    monkeypatch.setattr(build, "write_page", lambda path, content: None)
    return seen


@pytest.mark.parametrize("task", ["segment", "detect"])
def test_the_backbone_of_images(files, monkeypatch, task):
    torch.manual_seed(0)
    if task == "segment":
        model = create_segmenter("coc_tiny", 2, neck_dim=8, decoder_dim=8, **SMALL)
    else:
        model = create_detector("coc_tiny", 2, anchor_sizes=(8, 16, 32), **SMALL)
    info = {"name": "coc_tiny", "data": IMAGES, "classes": NAMES}
    get_task(task).explain(arguments(files, "a.png", "a.png.png"), (model.eval(), info))
    with Image.open(files / "a.png.png") as picture:
        assert min(picture.size) > 200
    seen, loaded = views(monkeypatch), []
    args = arguments(files, "a.png", "a.html", mask=str(files / "m.png"), epochs=[("epoch 1", loaded.append)])
    get_task(task).explain(args, (model, info))
    (epoch,) = seen[0].epochs
    assert loaded == [model] and epoch.label == "epoch 1" and epoch.guess == [] and epoch.maps == []
    assert [block.name for block in epoch.blocks] == ["stage 1, block 1", "stage 2, block 1"]
    assert 0 < seen[0].points.count and seen[0].points.count < seen[0].points.height * seen[0].points.width


def test_the_backbone_of_clouds(files, monkeypatch):
    torch.manual_seed(0)
    model = create_segmenter("coc_tiny", 2, neck_dim=8, decoder_dim=8, coord_dims=3, **SMALL).eval()
    info, seen = {"name": "coc_tiny", "data": CLOUDS, "classes": NAMES}, views(monkeypatch)
    get_task("segment").explain(arguments(files, "a.npz", "a.html"), (model, info))
    assert seen[0].kind == "cloud" and seen[0].points.count == 200 and len(seen[0].epochs[0].blocks) == 2
    get_task("segment").explain(arguments(files, "a.npz", "b.png"), (model, info))
    assert (files / "b.png").stat().st_size > 10_000


@pytest.mark.parametrize("task", ["segment", "detect"])
def test_what_cannot_be_drawn(files, task):
    with pytest.raises(ValueError, match=f"{task} has no networks by name; give a run with --run"):
        get_task(task).explain(arguments(files, "a.png", "b.png"), None)
    model = create_segmenter("resnet18", 2, neck_dim=8, decoder_dim=8)
    info = {"name": "resnet18", "data": IMAGES, "classes": NAMES}
    with pytest.raises(ValueError, match="RUN has the backbone resnet18, none of whose blocks clusters"):
        get_task(task).explain(arguments(files, "a.png", "b.png"), (model, info))


def test_a_picture_ends_in_png() -> None:
    with pytest.raises(ValueError, match="--out x.jpg: expected a file that ends in"):
        is_page(Namespace(out="x.jpg", label=None, clusters=None))
