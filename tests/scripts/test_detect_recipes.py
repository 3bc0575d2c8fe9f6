"""Recipes of detection: each can be read, and says what its paper says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from pointmix.data.detect.resolve import resolve
from pointmix.engine.flags import parse
from pointmix.tasks.base import get_task
from pointmix.tasks.config import as_plain
from pointmix.tasks.detect import DetectConfig

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs" / "detect").glob("*.yaml"))
CLASSES = {"coco": 80, "scenes": 10, "instances": 1}


def recipe(path, *flags):
    return parse(
        [f"--config={path}", *(["--data.root=DIR"] if "DIR" in path.read_text() else []), *flags], DetectConfig
    )


def network(cfg):
    data = resolve(cfg.data)
    info = {"name": cfg.model.name, "kwargs": cfg.model.kwargs, "in_chans": data.in_chans, "has_masks": True}
    info |= {"classes": ["a"] * CLASSES[data.source], "data": as_plain(data)}
    with torch.device("meta"):
        return get_task("detect").build_model(info)


def size(cfg):
    return sum(parameter.numel() for parameter in network(cfg).parameters())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipes_parse_and_say_command_cost_and_result(path):
    cfg, lines = recipe(path), path.read_text().splitlines()
    assert cfg.name in (path.stem, None) and resolve(cfg.data) == resolve(resolve(cfg.data))
    assert lines[0].startswith("# ") and "pointmix train detect" in lines[0]
    assert f"detect/{path.stem}" in lines[0] or lines[0] == "# pointmix train detect"
    assert lines[1].startswith("# Cost: ") and lines[2].startswith("# Result: ")
    words = shlex.split(lines[0])
    flags = [word for word in words[words.index("detect") + 1 :] if word.startswith("--")]
    assert {flag.partition("=")[0] for flag in flags} <= {f"--{key}" for key in _keys(as_plain(cfg))} | {"--config"}
    assert size(cfg) > 1e5
    if stated := re.search(r"([\d.]+) M", lines[1]):
        assert stated[1] == f"{size(cfg) / 1e6:.2f}"


def _keys(values):
    for key, value in values.items():
        yield key
        if isinstance(value, dict):
            yield from (f"{key}.{inner}" for inner in value)


# AP of boxes and masks in the paper, parameters
COCO = {
    "coc": {
        "CoC-Small/4 35.9 33.8": 34_312_456, "CoC-Small/25 37.5 35.4": 34_312_456,
        "CoC-Small/49 37.2 34.9": 34_312_456, "CoC-Medium/4 38.6 36.1": 48_945_952,
        "CoC-Medium/25 40.1 37.4": 48_945_952, "CoC-Medium/49 40.6 37.6": 48_945_952,
    },
    "fec": {"FEC-Small 35.6 33.6": 25_469_048, "FEC-Base 37.9 35.5": 34_742_280, "FEC-Large 39.9 37.3": 49_375_776},
    "hcformer": {
        "HCFormer-Nano 36.0 34.0": 25_138_594, "HCFormer-Tiny 36.4 34.5": 26_694_210,
        "HCFormer-Small 38.7 36.0": 35_763_702, "HCFormer-Medium 40.9 37.6": 53_303_788,
    },
}  # fmt: skip


def coco_rows():
    """Family, row of the paper, flags, parameters, as the comments of the recipes have them."""
    for family, sizes in COCO.items():
        path = ROOT / "configs" / "detect" / f"{family}_1x.yaml"
        found = re.findall(r"^#   (\S+ [\d.]+ [\d.]+) +(as it is|--.*)$", path.read_text(), re.M)
        assert [row for row, _ in found] == list(sizes)
        for row, flags in found:
            yield pytest.param(path, [] if flags == "as it is" else shlex.split(flags), sizes[row], id=row)


@pytest.mark.parametrize("path, flags, parameters", list(coco_rows()))
def test_every_row_of_the_papers_is_one_command(path, flags, parameters, request):
    cfg = recipe(path, *_joined(flags))
    family, row = path.stem.removesuffix("_1x"), request.node.callspec.id
    model = network(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert cfg.model.name == re.split(r"[ /]", row.lower())[0].replace("-", "_")
    per_side = {"4": 2, "25": 5, "49": 7}.get(row.split()[0].partition("/")[2], 7)
    if family != "hcformer":
        assert [stage.centers_per_side for stage in model.backbone.stages] == [per_side] * 4
    if family == "fec":
        assert [stage.windows_per_side for stage in model.backbone.stages] == [2, 2, 1, 1]
        assert [stage.reducer.windows_per_side for stage in model.backbone.stages[1:]] == [2, 1, 1]
    assert cfg.model.kwargs.get("pad") == ("always" if family == "hcformer" else None)
    optim, data = cfg.optim, resolve(cfg.data)
    assert optim.decay_all  # their AdamW has no paramwise_cfg
    lr = 1e-4 if family == "hcformer" else 2e-4
    assert (optim.opt, optim.scaled_lr(16), optim.weight_decay, optim.betas) == ("adamw", lr, 1e-4, None)
    falls = ((8, 9, 11), 0.2) if family == "fec" else ((8, 11), 0.1)
    assert (optim.sched, optim.milestones, optim.decay_rate) == ("multistep", *falls)
    assert (optim.warmup_steps, optim.warmup_lr / lr, optim.clip_grad) == (500, pytest.approx(0.001), None)
    assert (cfg.epochs, cfg.steps, cfg.batch_size * 4, cfg.grad_accum_steps, cfg.select) == (12, None, 16, 1, "last")
    assert (data.short_side, data.max_side, data.size_multiple, data.train_short_sides) == (800, 1333, 32, None)
    assert (data.hflip, data.photometric, data.val_fraction, data.masks) == (0.5, False, 0, None)
    assert data.group_by_aspect and data.jitter_scale is None and not data.copy_paste and optim.ema_decay is None


def _joined(words):
    """Flags and their values, joined by =."""
    return re.findall(r"--\S+?=.+?(?= --|$)", re.sub(r"(--[\w.]+) (?!--)", r"\1=", " ".join(words)))
