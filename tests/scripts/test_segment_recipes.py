"""Recipes of segmentation: each can be read, and says what its paper says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from pointmix.data.segment.resolve import is_cloud, resolve
from pointmix.engine.flags import parse
from pointmix.tasks.base import get_task
from pointmix.tasks.config import as_plain
from pointmix.tasks.segment import SegmentConfig

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs" / "segment").glob("*.yaml"))
CHANNELS = {"scenes3d": 0, "s3dis": 3, "scannet": 6, "shapenetpart": 3, "files": 3, "rgbd": 4}
CLASSES = {"ade20k": 150, "cityscapes": 19, "camvid": 11, "scenes": 11, "scenes3d": 8, "s3dis": 13, "scannet": 20}
CLASSES |= {"shapenetpart": 50, "files": 4, "rgbd": 2}


def recipe(path, *flags):
    return parse(
        [f"--config={path}", *(["--data.root=DIR"] if "DIR" in path.read_text() else []), *flags], SegmentConfig
    )


def network(cfg):
    data = resolve(cfg.data)
    info = {"name": cfg.model.name, "kwargs": cfg.model.kwargs, "in_chans": CHANNELS.get(data.source, 3)}
    info |= {"coord_dims": 3 if is_cloud(data) else 2, "data": as_plain(data)}
    info |= {"classes": ["a"] * CLASSES[data.source], "categories": None}
    if data.source == "shapenetpart":
        info["categories"] = {str(number): [0] for number in range(16)}
    with torch.device("meta"):
        return get_task("segment").build_model(info)


def size(cfg):
    return sum(parameter.numel() for parameter in network(cfg).parameters())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipes_parse_and_say_command_cost_and_result(path):
    cfg, lines = recipe(path), path.read_text().splitlines()
    assert cfg.name in (path.stem, None) and resolve(cfg.data) == resolve(resolve(cfg.data))
    assert lines[0].startswith("# ") and "pointmix train segment" in lines[0]
    assert f"segment/{path.stem}" in lines[0] or lines[0] == "# pointmix train segment"
    assert lines[1].startswith("# Cost: ") and lines[2].startswith("# Result: ")
    words = shlex.split(lines[0])
    flags = [word for word in words[words.index("segment") + 1 :] if word.startswith("--")]
    assert {flag.partition("=")[0] for flag in flags} <= {f"--{key}" for key in _keys(as_plain(cfg))} | {"--config"}
    assert size(cfg) > 1e5
    if stated := re.search(r"([\d.]+) M", lines[1]):
        assert stated[1] == f"{size(cfg) / 1e6:.2f}"


def _keys(values):
    for key, value in values.items():
        yield key
        if isinstance(value, dict):
            yield from (f"{key}.{inner}" for inner in value)


# mIoU in the paper, parameters in units of 2^20
ADE = {
    "coc": {
        "CoC-Small/4 36.6": 17.56, "CoC-Small/25 36.4": 17.56, "CoC-Small/49 36.3": 17.56,
        "CoC-Medium/4 40.2": 31.51, "CoC-Medium/25 40.6": 31.51, "CoC-Medium/49 40.8": 31.51,
    },
    "fec": {"FEC-Small 35.3": 9.13, "FEC-Base 37.7": 17.97, "FEC-Large 40.5": 31.92},
    "hcformer": {
        "HCFormer-Nano 36.8": 8.810, "HCFormer-Tiny 37.3": 10.293, "HCFormer-Small 40.4": 18.943,
        "HCFormer-Medium 43.3": 35.670,
    },
}  # fmt: skip


def ade_rows():
    """Family, row of the paper, flags, parameters, as the comments of the recipes have them."""
    for family, sizes in ADE.items():
        path = ROOT / "configs" / "segment" / f"ade20k_{family}.yaml"
        found = re.findall(r"^#   (\S+ [\d.]+) +(as it is|--.*)$", path.read_text(), re.M)
        assert [row for row, _ in found] == list(sizes)
        for row, flags in found:
            yield pytest.param(path, [] if flags == "as it is" else shlex.split(flags), sizes[row], id=row)


@pytest.mark.parametrize("path, flags, size_in_mi", list(ade_rows()))
def test_every_row_of_the_papers_is_one_command(path, flags, size_in_mi, request):
    cfg = recipe(path, *_joined(flags))
    family, row = path.stem.removeprefix("ade20k_"), request.node.callspec.id
    assert size(cfg) / 2**20 == pytest.approx(size_in_mi, abs=0.005)
    per_side = {"4": 2, "25": 5, "49": 7}
    centers = {"coc": [per_side.get(row.split()[0].partition("/")[2])] * 4, "fec": [10, 10, 5, 5], "hcformer": None}
    if family == "coc" and "/4 " in row and "Medium" in row:
        assert [stage.centers_per_side for stage in network(cfg).backbone.stages] == [2] * 4  # the default
    else:
        assert cfg.model.kwargs.get("centers_per_side") == centers[family]
    assert cfg.model.kwargs.get("pad") == ("always" if family == "hcformer" else None)  # as SEGMENTERS have it
    optim, data = cfg.optim, resolve(cfg.data)
    assert optim.decay_all  # their AdamW has no paramwise_cfg
    lr = 2e-4 if family == "hcformer" else 1e-4
    assert (optim.opt, optim.scaled_lr(16), optim.weight_decay, optim.betas) == ("adamw", lr, 1e-4, None)
    assert (optim.sched, optim.power, optim.min_lr, optim.warmup_epochs, optim.clip_grad) == ("poly", 0.9, 0, 0, None)
    assert (cfg.steps, cfg.batch_size * 4, cfg.grad_accum_steps, cfg.select) == (80_000, 16, 1, "last")
    assert (data.crop_size, data.short_side, data.scale_range, data.size_multiple) == ((512, 512), 512, (0.5, 2.0), 32)
    assert (data.cat_max_ratio, data.hflip, data.photometric, data.val_fraction) == (0.75, 0.5, True, 0)
    assert data.reduce_zero_label is True and cfg.loss == SegmentConfig().loss and optim.ema_decay is None


def _joined(words):
    """Flags and their values, joined by =."""
    return re.findall(r"--\S+?=.+?(?= --|$)", re.sub(r"(--[\w.]+) (?!--)", r"\1=", " ".join(words)))


def test_clouds_are_sampled_as_usual():
    s3dis, scannet, parts = (
        resolve(recipe(ROOT / "configs" / "segment" / f"{name}.yaml").data)
        for name in ("s3dis_area5", "scannet", "shapenetpart")
    )
    assert (s3dis.test_area, s3dis.grid_size, s3dis.max_points, s3dis.features) == (5, 0.04, 24_000, ("rgb",))
    assert (scannet.grid_size, scannet.features) == (0.02, ("rgb", "normal"))
    assert (parts.max_points, parts.normalize, parts.rotate) == (2048, "unit_sphere", 0)
