"""Training of segmenters on images, partial images and clouds with parts, from the configuration to the report."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from rich.console import Console

from pointmix.data.segment import loaders, splits
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.engine import loop, states
from pointmix.engine.checkpoint import load_run
from pointmix.engine.run import build_run
from pointmix.engine.signals import Stopped
from pointmix.engine.train import build_accelerator, train
from pointmix.tasks.base import get_task, task_of
from pointmix.tasks.config import ModelConfig, OptimConfig
from pointmix.tasks.segment import LossConfig, SegmentConfig
from pointmix.tasks.segment.metrics import PartMetric
from tests.data.segment import toy

COC = dict(
    stem=[3, 2, 1], depths=[1, 1], dims=[16, 24], mlp_ratios=[2, 2], heads=2, head_dim=8,
    windows_per_side=[2, 1], centers_per_side=[2, 2], layer_scale=1.0, drop_path_rate=0.2,
    neck_dim=16, decoder_dim=8,
)  # fmt: skip
TASK = get_task("segment")


@pytest.fixture(autouse=True)
def plain_transforms(monkeypatch, no_pictures):
    def transform_of(cfg, *, training):
        return toy.flipped_or_not if training else toy.prepared

    monkeypatch.setattr(loaders, "transform_of", transform_of)
    monkeypatch.setattr(splits, "with_feature_scale", lambda cfg, source, chosen, quiet: (cfg, None))


@pytest.fixture
def config(tmp_path):
    def make(source="toy_images", *, kwargs=None, data=None, loss=None, **top) -> SegmentConfig:
        cfg = SegmentConfig(
            data=SegmentDataConfig(**({"source": source, "val_fraction": 0.2, "repeat": 2} | (data or {}))),
            model=ModelConfig("coc_tiny", COC | (kwargs or {})),
            optim=OptimConfig(lr=0.01, lr_base_batch=4, warmup_epochs=0, ema_decay=0.5),
            loss=LossConfig(**(loss or {})),
            output_dir=str(tmp_path / "run"),
            epochs=2,
            batch_size=4,
            log_every=1,
        )
        return dataclasses.replace(cfg, **top)

    return make


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def test_a_run_on_images(config, tmp_path, capsys):
    cfg = config(epochs=12, loss={"class_weights": "balanced", "dice": 0.5})
    metrics = train(cfg)
    assert metrics["test"]["miou"] > 0.6 and metrics["data"] == "toy_images" and metrics["unit"] == "samples"
    assert set(metrics["scores"]) == {"miou", "macc", "aacc"} and metrics["monitor"] == "miou"
    assert all({"miou", "macc", "aacc"} == set(entry["val"]) for entry in metrics["history"])
    saved = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert saved["test"]["confusion"] == metrics["test"]["confusion"]
    assert sum(map(sum, saved["test"]["confusion"])) == 4 * 64 and saved["test"]["absent"] == 0
    info = saved["info"]
    assert (info["classes"], info["in_chans"], info["coord_dims"]) == (list(toy.CLASSES), 3, 2)
    assert info["palette"][1] == [4, 5, 6] and info["categories"] is None and info["data"]["crop_size"] == [8, 8]
    assert len(info["class_weights"]) == 3 and all(weight > 0 for weight in info["class_weights"])
    text = capsys.readouterr().out
    assert "middle" in text and "mIoU" in text and "IoU" in text

    model, loaded = load_run(tmp_path / "run")
    assert loaded["task"] == "segment" and not model.training
    found = TASK.build_metric(loaded)
    for batch in splits.build_segments_test(TASK.data_config(loaded))[0]:
        with torch.no_grad():
            found.update(model, batch)
    assert found.compute() == metrics["test"]


def test_resuming_continues_bit_for_bit(config, tmp_path, monkeypatch):
    cfg = config(loss={"lovasz": 0.5})
    whole = train(cfg)
    expected = weights_of(tmp_path / "run")
    step, steps = loop.train_step, 0

    def stop_in_the_second_epoch(*args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == 6:
            raise Stopped(15, "stopped")
        return step(*args, **kwargs)

    again = dataclasses.replace(cfg, output_dir=str(tmp_path / "again"), save_every_steps=1)
    monkeypatch.setattr(loop, "train_step", stop_in_the_second_epoch)
    with pytest.raises(Stopped):
        train(again)
    assert states.list_states(tmp_path / "again" / states.FOLDER)
    monkeypatch.setattr(loop, "train_step", step)
    resumed = train(again)
    assert weights_of(tmp_path / "again") == expected and resumed["test"] == whole["test"]


def test_a_run_on_objects_with_parts(config, capsys):
    metrics = train(config("toy_clouds", kwargs={"global_context": True}))
    assert metrics["info"]["categories"] == {"even": [0, 1], "odd": [1, 2]} and metrics["info"]["coord_dims"] == 3
    assert set(PartMetric.part_scores) < set(metrics["test"])
    assert metrics["test"]["per_category"].keys() == {"even", "odd"}
    assert {"instance_miou", "class_miou"} < set(metrics["history"][0]["val"])
    assert "instance mean" in capsys.readouterr().out


def test_networks_that_do_not_suit_the_data_are_refused_before_training(config, tmp_path):
    def refused(cfg, message):
        with pytest.raises(ValueError, match=message):
            build_run(cfg, tmp_path, build_accelerator(cfg))

    refused(
        config(data={"keep_ratio": 0.5}, model=ModelConfig("resnet18")), "does not take images of 3x8x8 with hidden"
    )
    refused(config("toy_clouds", model=ModelConfig("resnet18")), "resnet18 does not take samples: .*coord_dims")
    refused(config(model=ModelConfig("coc_large")), "coc_large")
    refused(config(kwargs={"num_classes": 4}), "model.kwargs.num_classes is set by the data")
    refused(config(kwargs={"in_chans": 4}), "model.kwargs.in_chans is set by the data")
    refused(config(loss={"class_weights": (1.0, 2.0)}), "loss.class_weights has 2 values for 3 classes")
    refused(config(batch_size=17), "16 training samples do not fill one batch of 17")


def test_the_network_and_its_example(config):
    info = {"name": "coc_tiny", "kwargs": COC, "classes": list("abcde"), "in_chans": 3, "coord_dims": 2}
    info |= {"categories": None, "data": {"source": "toy_images", "crop_size": [20, 24]}}
    model, blank = TASK.build_model(info), TASK.example_input(info)
    assert model(blank).shape == (480, 5) and blank.layout.size == (20, 24)
    cloud = info | {"coord_dims": 3, "categories": {"a": [0, 1], "b": [2, 3, 4]}, "data": {"source": "toy_clouds"}}
    model, blank = TASK.build_model(cloud), TASK.example_input(cloud)
    assert model(blank, torch.tensor([1])).shape == (len(blank.pos), 5) and blank.pos.shape[1] == 3


INFO = {"classes": ["a", "b"], "palette": None, "categories": None, "in_chans": 3, "coord_dims": 2}
INFO |= {"class_weights": None, "data": {"source": "toy_images"}}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": []}, "classes in its metadata is .*, expected a list of names"),
        ({"classes": ["a", 3]}, "classes in its metadata"),
        ({"in_chans": True}, "in_chans in its metadata is True"),
        ({"in_chans": 10**9}, "in_chans in its metadata"),
        ({"coord_dims": 0}, "coord_dims in its metadata is 0"),
        ({"palette": [[1, 2, 3]]}, "palette in its metadata .* expected 2 colors"),
        ({"palette": [[1, 2, 3], [1, 2, 256]]}, "palette in its metadata"),
        ({"palette": [[1, 2, 3], None]}, "palette in its metadata"),
        ({"categories": {"x": [0, 2]}}, "categories in its metadata .* labels below 2"),
        ({"categories": {}}, "categories in its metadata"),
        ({"categories": {"x": []}}, "categories in its metadata"),
        ({"class_weights": [1.0]}, "class_weights in its metadata"),
        ({"class_weights": [1.0, "x"]}, "class_weights in its metadata"),
        ({"class_weights": [1.0, -1.0]}, "class_weights in its metadata"),
        ({"data": {}}, "data in its metadata"),
        ({"palette": ...}, "its metadata has no 'palette'"),
    ],
)
def test_metadata_of_any_file_is_checked(change, message):
    TASK.check_info(INFO | {"palette": [[0, 0, 0], [255, 1, 2]], "categories": {"x": [0], "y": [1]}})
    wrong = {key: value for key, value in (INFO | change).items() if value is not ...}
    with pytest.raises(ValueError, match=message) as e:
        TASK.check_info(wrong)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("source", ["toy_images", "toy_clouds"])
def test_data_settings_are_read_back_from_json(config, source):
    cfg = config(source, data={"label_map": {3: 0, 7: 1, 9: 2}})
    run = build_run(cfg, None, build_accelerator(cfg))
    info = json.loads(json.dumps(run.info))
    assert TASK.data_config(info) == run.splits.config and TASK.data_config(info).label_map[7] == 1
    with pytest.raises(ValueError, match="expected a class for each label"):
        TASK.data_config(info | {"data": info["data"] | {"label_map": {"one": 1}}})
    with pytest.raises(ValueError, match="unknown data setting 'nothing'"):
        TASK.data_config(info | {"data": {"nothing": 1}})


def test_the_report_names_what_is_absent():
    test = {"iou": [0.5, None], "acc": [1.0, None], "absent": 1, "unlabeled": 2, "confusion": [[3, 1], [0, 0]]}
    console = Console(width=100, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    TASK.report({"test": test, "info": {"classes": ["sky", "[b]"]}}, console)
    text = console.export_text()
    assert "1 of 2 classes do not occur" in text and "2 samples have no label" in text.replace("\n", " ")
    assert "[b] (25.0 %)" in text and "50.0 %" in text
    TASK.report({"test": {"miou": 1.0}, "info": {"classes": []}}, console)


def test_names():
    assert task_of(SegmentConfig(data=SegmentDataConfig(source="toy_images"))) is TASK
    named = SegmentConfig(data=SegmentDataConfig(source="toy_images", root="/a/b"))
    assert named.data_name == "toy_images" and TASK.describe_data(named, INFO) == "toy_images, 2 classes"
