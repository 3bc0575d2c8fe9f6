"""Training of detectors from the configuration to the report."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import pytest
import torch
from rich.console import Console

from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.splits import build_detect_test
from pointmix.engine import loop, states
from pointmix.engine.checkpoint import load_run
from pointmix.engine.evaluate import evaluate
from pointmix.engine.flags import parse_recipe
from pointmix.engine.run import build_run
from pointmix.engine.signals import Stopped
from pointmix.engine.train import build_accelerator, train
from pointmix.tasks.base import get_task, task_of
from pointmix.tasks.config import ModelConfig, OptimConfig
from pointmix.tasks.detect import DetectConfig
from pointmix.tasks.segment import SegmentConfig
from tests.data.detect import toy

TINY = dict(
    stem=[3, 2, 1], depths=[1, 1], dims=[16, 24], mlp_ratios=[2, 2], heads=2, head_dim=8,
    windows_per_side=[2, 1], centers_per_side=[2, 2], layer_scale=1.0, drop_path_rate=0.2,
    neck_dim=16, box_dim=32, mask_dim=8, anchor_sizes=[4, 8, 16],
)  # fmt: skip
TASK = get_task("detect")


@pytest.fixture(autouse=True)
def quick(no_pictures):
    pass


@pytest.fixture
def config(tmp_path):
    def make(source="toy_objects", *, kwargs=None, data=None, **top) -> DetectConfig:
        cfg = DetectConfig(
            data=DetectDataConfig(**({"source": source, "val_fraction": 0.2} | (data or {}))),
            model=ModelConfig("coc_tiny", TINY | (kwargs or {})),
            optim=OptimConfig(lr=0.01, lr_base_batch=2, warmup_epochs=0, clip_grad=5.0, ema_decay=0.5),
            output_dir=str(tmp_path / "run"),
            epochs=2,
            batch_size=2,
            log_every=1,
        )
        return dataclasses.replace(cfg, **top)

    return make


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def test_a_run(config, tmp_path, capsys):
    metrics = train(config(epochs=3))
    assert metrics["data"] == "toy_objects" and metrics["unit"] == "images" and metrics["monitor"] == "box_ap"
    assert set(metrics["scores"]) == {"box_ap", "box_ap50", "mask_ap", "mask_ap50"}
    assert all({"box_ap", "mask_ap", "box_ar"} <= set(entry["val"]) for entry in metrics["history"])
    assert metrics["history"][-1]["train_loss"] < metrics["history"][0]["train_loss"]
    saved = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert saved["test"]["objects"] == [4, 4, 4] and saved["test"]["absent"] == 0
    info = saved["info"]
    assert info["classes"] == ["a", "b", "c"] and info["category_ids"] == [7, 3, 20]
    assert info["in_chans"] == 3 and info["has_masks"] is True and info["data"]["short_side"] == 20
    text = capsys.readouterr().out
    (line,) = re.findall(r"epoch 1/3  train loss ([\d.]+) \((.*?)\)  val", text)
    parts = dict(part.split() for part in line[1].split(", "))
    assert list(parts) == ["objectness", "rpn_box_reg", "classifier", "box_reg", "mask"]
    assert sum(map(float, parts.values())) == pytest.approx(float(line[0]), abs=4e-4)
    assert "boxes and masks of 3 classes" in text and "mask AP50" in text and "by class" in text

    model, loaded = load_run(tmp_path / "run")
    assert loaded["task"] == "detect" and not model.training
    again = evaluate(model, build_detect_test(TASK.data_config(loaded))[0], metric=TASK.build_metric(loaded))
    assert again == metrics["test"]


def test_boxes_alone(config, capsys):
    metrics = train(config(data={"masks": False}, select="test", epochs=1))
    assert set(metrics["scores"]) == {"box_ap", "box_ap50"} == set(metrics["best_on_test"])
    assert metrics["info"]["has_masks"] is False and "mask_ap" not in metrics["test"]
    assert "toy_objects, boxes of 3 classes" in capsys.readouterr().out


def test_resuming_continues_bit_for_bit(config, tmp_path, monkeypatch):
    cfg = config(data={"hflip": 0.5, "copy_paste": 0.5})
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


def test_weights_of_a_classifier_and_of_other_classes(config, tmp_path, capsys):
    from pointmix import create_model
    from pointmix.engine.checkpoint import save_model

    backbone = {key: value for key, value in TINY.items() if key not in ("neck_dim", "box_dim", "mask_dim")}
    del backbone["anchor_sizes"]
    network = create_model("coc_tiny", num_classes=7, **backbone)
    info = {"task": "classify_images", "name": "coc_tiny", "kwargs": backbone, "classes": list("1234567")}
    info |= {"in_chans": 3, "data": {"source": "digits"}}
    save_model(tmp_path / "classifier.safetensors", network, info)
    init = ModelConfig("coc_tiny", TINY, init=str(tmp_path / "classifier.safetensors"))
    run = build_run(config(model=init), tmp_path, build_accelerator(config()))
    own = run.model.state_dict()
    for key, value in network.state_dict().items():
        if key.startswith(("stages", "stem", "patch_embed")):
            assert torch.equal(own[f"backbone.{key}"], value), key
    assert "of the network's numbers are from" in capsys.readouterr().out.replace("\n", " ")

    with torch.no_grad():
        run.model.neck.lateral[0].weight.fill_(0.25)
    save_model(tmp_path / "detector.safetensors", run.model, run.info | {"classes": list("abc")})
    init = dataclasses.replace(init, init=str(tmp_path / "detector.safetensors"))
    boxes_only = config(model=init, data={"masks": False})
    other = build_run(boxes_only, tmp_path, build_accelerator(boxes_only)).model
    assert (other.neck.lateral[0].weight == 0.25).all() and "left out" in capsys.readouterr().out


def test_networks_that_do_not_suit_the_data_are_refused_before_training(config, tmp_path):
    def refused(cfg, message):
        with pytest.raises(ValueError, match=message) as e:
            build_run(cfg, tmp_path, build_accelerator(cfg))
        assert "\n" not in str(e.value)

    refused(config(kwargs={"masks": True}), "model.kwargs.masks is set by the data")
    refused(config(kwargs={"anchor_sizes": [4, 8]}), "anchor_sizes must have a size for each of 2 maps")
    refused(config(kwargs={"neck": 4}), "coc_tiny")
    refused(config(batch_size=9), "8 training (images|samples) do not fill one batch of 9")
    hidden = config(data={"keep_ratio": 0.5}, model=ModelConfig("resnet18", {"neck_dim": 8, "box_dim": 8}))
    refused(hidden, "resnet18 does not take images of 3x32x32 with hidden pixels")


@pytest.mark.parametrize("split, name", [("test", "4 test"), ("train", "2 validation")])
def test_images_for_ap_without_any_object_are_refused_before_training(config, split, name, monkeypatch):
    held_out = TASK.build_splits(config(), rank=0, world_size=1).val.samples.indices.tolist()
    empty = range(4) if split == "test" else held_out
    monkeypatch.setattr(toy.Toy, "has_objects", lambda self, index: self.split != split or index not in empty)
    with pytest.raises(ValueError, match=f"none of {name} images has an object, expected some"):
        TASK.build_splits(config(), rank=0, world_size=1)


def test_the_check_trains_on_a_blank_image_and_changes_nothing(config, tmp_path):
    cfg = config()
    run = build_run(cfg, tmp_path, build_accelerator(cfg))
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    TASK.check_model(run.model, cfg, run.info)
    assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())
    with torch.no_grad():
        run.model.roi_heads.box_head.fc6.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="coc_tiny has the loss_classifier nan"):
        TASK.check_model(run.model, cfg, run.info)


def test_a_loss_that_is_not_finite_ends_the_run_with_one_line(config, monkeypatch):
    def broken(model, batch):
        return model(batch.points, batch.sizes, batch.targets)["loss_classifier"] * float("nan")

    monkeypatch.setattr("pointmix.tasks.detect.task.detection_loss", broken)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        train(config())


INFO = {"classes": ["a", "b"], "category_ids": [3, 90], "in_chans": 3, "has_masks": True}
INFO |= {"data": {"source": "toy_objects"}}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": []}, "classes in its metadata is .*, expected a list of names"),
        ({"classes": ["a", 3]}, "classes in its metadata"),
        ({"category_ids": [1]}, "category_ids in its metadata is .*, expected 2 different whole numbers"),
        ({"category_ids": [1, 1]}, "category_ids in its metadata"),
        ({"category_ids": [1, "2"]}, "category_ids in its metadata"),
        ({"category_ids": [1, True]}, "category_ids in its metadata"),
        ({"in_chans": True}, "in_chans in its metadata is True"),
        ({"in_chans": 10**9}, "in_chans in its metadata"),
        ({"has_masks": 1}, "has_masks in its metadata is 1, expected true or false"),
        ({"data": {}}, "data in its metadata"),
        ({"has_masks": ...}, "its metadata has no 'has_masks'"),
    ],
)
def test_metadata_of_any_file_is_checked(change, message):
    TASK.check_info(INFO)
    wrong = {key: value for key, value in (INFO | change).items() if value is not ...}
    with pytest.raises(ValueError, match=message) as e:
        TASK.check_info(wrong)
    assert "\n" not in str(e.value)


def test_data_settings_are_read_back_from_json(config, tmp_path):
    cfg = config(data={"keep_ratio": (0.5, 1.0), "train_short_sides": (16, 20)})
    run = build_run(cfg, tmp_path, build_accelerator(cfg))
    assert TASK.data_config(json.loads(json.dumps(run.info))) == run.splits.config


@pytest.mark.parametrize(
    "files, source",
    [
        (["annotations/train.json"], "coco"),
        (["data.yaml"], "yolo"),
        (["dataset.yaml"], "yolo"),
        (["Annotations/1.xml"], "voc"),
        ([], "instances"),
    ],
)
def test_a_folder_alone_says_what_lies_in_it(files, source, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert DetectConfig.root_source(str(tmp_path)) == source
    assert DetectConfig.root_source(str(tmp_path / "own.yaml")) == "yolo"
    assert SegmentConfig.root_source(str(tmp_path)) == "folder"


def test_the_source_of_a_folder_is_set_and_said(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").touch()
    cfg, basis = parse_recipe([f"--data.root={tmp_path}"], DetectConfig)
    assert cfg.data.source == "coco" and "data.source coco, as data.root is given" in basis
    assert cfg.data_name == tmp_path.name
    (tmp_path / "own.yaml").touch()
    assert parse_recipe([f"--data.root={tmp_path}/own.yaml"], DetectConfig)[0].data_name == tmp_path.name


def test_the_report_by_class():
    metrics = {"box_ap": 0.5, "box_ap50": 0.75, "box_ap75": 0.5, "box_ap_small": None, "box_ap_medium": 0.25}
    metrics |= {"box_ap_large": 1.0, "box_ar": 0.6, "box_ap_per_class": [0.5, None], "box_ap50_per_class": [0.75, None]}
    metrics |= {"objects": [4, 0], "absent": 1}
    console = Console(width=120, file=io.StringIO())
    TASK.report({"test": metrics, "info": {"classes": ["sky", "[b]"]}}, console)
    text = " ".join(console.file.getvalue().split())
    assert "1 of 2 classes have no object" in text and "[b]" in text and "75.0" in text and "mask" not in text


def test_names():
    assert task_of(DetectConfig(data=DetectDataConfig(source="toy_objects"))) is TASK
    assert toy.CLASSES == ("a", "b", "c")


def test_images_without_objects_train_every_part(config, tmp_path):
    """Otherwise processes would wait for gradients that one of them does not have."""
    cfg = config()
    run = build_run(cfg, tmp_path, build_accelerator(cfg))
    batch = next(iter(run.splits.train))
    none = [type(t)(t.boxes[:0], t.labels[:0], t.masks[:0]) for t in batch.targets]
    loss = sum(run.loss(run.model.train(), batch._replace(targets=none)).values())
    loss.backward()
    assert torch.isfinite(loss)
    assert [name for name, p in run.model.named_parameters() if p.grad is None] == []
