"""Configurations in YAML and flags, as the training scripts read them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.resolve import resolve as resolve_points
from pointmix.data.images.config import DataConfig
from pointmix.data.images.resolve import resolve
from pointmix.engine.flags import parse
from pointmix.tasks.classify_images import ClassifyImagesConfig
from pointmix.utils.limits import DEFAULTS, limit

NAN = float("nan")
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
LAUGHS += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
NAMES_A_CLASS = "model:\n  name: coc_tiny\n  kwargs:\n    x: {class_path: this.Zen, init_args: {a: 1}}\n"
FILES: dict[str, bytes] = {
    "a billion laughs": LAUGHS.encode(),
    "laughs in kwargs": ("model:\n  kwargs:\n" + "".join(f"    {line}\n" for line in LAUGHS.splitlines())).encode(),
    "an alias in itself": b"model: &a\n  kwargs: {x: *a}\n",
    "an unknown alias": b"seed: *a\n",
    "deep lists": b"model: " + b"[" * 5000 + b"]" * 5000,
    "deep objects": b"{a: " * 1000,
    "a million values": b"seeds: [" + b"1, " * 1_000_000 + b"1]",
    "10 MB of text": b"name: " + b"x" * 10_000_000,
    "a class to be made": NAMES_A_CLASS.encode(),
    "a class in disguise": NAMES_A_CLASS.replace("class_path", '"class\\x5fpath"').encode(),
    "an object of Python": b"seed: !!python/object/apply:os.system [echo]\n",
    "an unknown tag": b"seed: !thing 1\n",
    "half a list": b"seeds: [1, 2\n",
    "a tab": b"model:\n\tname: coc_tiny\n",
    "a number alone": b"3\n",
    "a list alone": b"[1, 2]\n",
    "a key in a list": b"? [a]\n: 1\n",
    "an unknown key": b"wings: 2\n",
    "an unknown key below": b"model:\n  wings: 2\n",
    "a word for a number": b"epochs: many\n",
    "a list for a number": b"epochs: [1]\n",
    "terminal codes": b"seed: \x1b[31m\n",
    "not UTF-8": b"name: \xff\xfe\n",
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("case", FILES)
def test_files(case, folder, refused):
    Path("a.yaml").write_bytes(FILES[case])
    refused(lambda: parse(["--config=a.yaml"], ClassifyImagesConfig))
    assert "this" not in sys.modules  # importing it would print


def test_a_class_in_a_flag_is_not_made():
    spec = {"class_path": "decimal.Decimal", "init_args": {"value": "1"}}
    found = parse([f"--model.kwargs={json.dumps({'x': spec})}"], ClassifyImagesConfig).model.kwargs["x"]
    assert isinstance(found, dict) and found["class_path"] == "decimal.Decimal"


FLAGS = """
--config=gone.yaml --config=. --nonsense=1 --model.nonsense=1 --epochs=x --epochs=1.5 --batch_size=many --precision=fp8
--seed=x --seeds=[a] --select=best --compile=perhaps --data.img_size=x --data.keep_ratio=x --data.in_chans=x
--data.std=x --data.scale=x --votes=2 --optim.sched=plateau
""".split()
RUNS: dict[str, dict[str, object]] = {
    "no epochs": {"epochs": 0},
    "-1 epochs": {"epochs": -1},
    "no steps": {"steps": 0},
    "no steps at most": {"max_steps": 0},
    "no samples": {"batch_size": 0},
    "-4 samples": {"batch_size": -4},
    "no batches": {"grad_accum_steps": 0},
    "no seeds": {"seeds": ()},
    "one seed twice": {"seeds": (1, 1)},
    "saved every 0 steps": {"save_every_steps": 0},
    "points every 0 steps": {"log_every": 0},
    "no threads": {"threads": 0},
}
IMAGES: list[tuple[str, object]] = [
    *(("img_size", value) for value in (0, -1, 10_000, 2**40)),
    *(("crop_pct", value) for value in (0, 2, -1, NAN)),
    *(("val_fraction", value) for value in (1, -1, NAN)),
    *((key, value) for key in ("hflip", "vflip", "reprob") for value in (2, -1)),
    *(("keep_ratio", value) for value in (0, 2, -1, NAN, (1, 0.5), (0, 1))),
    *(("mask", value) for value in ("stars", "")),
    *((key, 0) for key in ("mask_patch", "limit")),
    *((key, -1) for key in ("workers", "pad_crop", "color_jitter", "split_seed", "in_chans")),
    *(("in_chans", value) for value in (0, 2, 4)),
    *((key, (1, 2)) for key in ("mean", "std")),
    *(("std", value) for value in ((0, 0, 0), (-1, 1, 1))),
    *((key, "magic") for key in ("auto_augment", "remode", "interpolation")),
    *((key, value) for key in ("scale", "ratio") for value in ((0, 1), (1, 0.5), (-1, 1))),
    ("root", "somewhere"),
]
POINTS: list[tuple[str, object]] = [
    *((key, value) for key in ("source", "features", "variant") for value in ("nothing", "")),
    *(("points", value) for value in (0, -5)),
    *((key, -1) for key in ("workers",)),
    *(("limit", value) for value in (0, -1)),
    *(("val_fraction", value) for value in (1, -1)),
    *(("scale", value) for value in ((0, 1), (2, 1))),
]


@pytest.mark.parametrize("flag", FLAGS)
def test_flags(flag, refused):
    refused(lambda: parse([flag], ClassifyImagesConfig))


@pytest.mark.parametrize("case", RUNS)
def test_runs(case, refused):
    refused(lambda: ClassifyImagesConfig(**RUNS[case]))


@pytest.mark.parametrize("key, value", IMAGES)
def test_images(key, value, refused):
    refused(lambda: resolve(DataConfig(**{key: value})))


@pytest.mark.parametrize("key, value", POINTS)
def test_points(key, value, refused):
    refused(lambda: resolve_points(PointDataConfig(**{key: value})))


@pytest.mark.parametrize("value", ["x", "-1", "0", "1.5", "1e9", "²", "9" * 30, " 1", "1_000"])
@pytest.mark.parametrize("name", DEFAULTS)
def test_limits(name, value, refused, monkeypatch):
    monkeypatch.setenv(f"POINTMIX_MAX_{name}", value)
    assert f"POINTMIX_MAX_{name}" in refused(lambda: limit(name))
