"""Two processes evaluate together: one AP, each image counted once."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from pointmix.data.detect import masks as rle
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.splits import build_detect_test
from pointmix.engine.checkpoint import load_run
from pointmix.engine.evaluate import evaluate
from pointmix.tasks.base import get_task
from pointmix.tasks.config import ModelConfig, OptimConfig
from pointmix.tasks.detect import DetectConfig
from tests.data.detect import toy
from tests.tasks.detect.test_task import TINY


def write_numbered(folder, split, count):
    """Images with a mask in which each object has a number of its own."""
    for kind in ("images", "masks"):
        (folder / kind / split).mkdir(parents=True)
    for index in range(count):
        sample = toy.Toy(split).read(index)
        numbers = (rle.decode(sample.objects.masks, (0, 0)) * np.array([1, 2, 3])[:, None, None]).max(0)
        sample.image.save(folder / "images" / split / f"{index}.png")
        Image.fromarray(numbers.astype(np.uint8)).save(folder / "masks" / split / f"{index}.png")


def test_two_processes_have_the_ap_of_one(forks, tmp_path):
    """The test split has 5 images, so one process has 3 and the other 2."""
    write_numbered(tmp_path / "data", "train", 10)
    write_numbered(tmp_path / "data", "test", 5)
    cfg = DetectConfig(
        data=DetectDataConfig("instances", str(tmp_path / "data"), val_fraction=0.3, short_side=20, max_side=40),
        model=ModelConfig("coc_tiny", TINY),
        optim=OptimConfig(lr=0.01, lr_base_batch=2),
        output_dir=str(tmp_path / "run"),
        epochs=2,
        batch_size=1,
    )
    done = forks.run(cfg, ranks=2)
    assert done["codes"] == [0, 0], done["out"]
    assert done["out"].count("test box AP50") == 1 and done["out"].count(", classifier ") == 2  # one process speaks

    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    model, info = load_run(tmp_path / "run")
    task = get_task("detect")
    loader = build_detect_test(task.data_config(info))[0]
    objects = sum(len(loader.samples.source.read(index).objects) for index in range(5))
    assert metrics["processes"] == 2 and metrics["test"]["objects"] == [objects] and 10 < objects <= 15
    assert evaluate(model, loader, metric=task.build_metric(info)) == metrics["test"]
