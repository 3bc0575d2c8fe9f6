"""Networks by name, in place of a run."""

from __future__ import annotations

import pytest
import torch

from pointmix.engine import inference
from pointmix.tasks.base import get_task

IMAGES = get_task("classify_images")


def open_model(**given):
    return inference.open_model(task="classify_images", **given)


def test_a_model_by_name(tmp_path):
    with pytest.warns(UserWarning, match="random weights"):
        model, info = open_model(model="coc_tiny", kwargs={"num_classes": 4})
    assert not model.training and info["classes"] == ["class 0", "class 1", "class 2", "class 3"]
    assert IMAGES.data_config(info).img_size == 224 and IMAGES.data_config(info).crop_pct == 0.9
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "w.pth")
    again, info = open_model(model="coc_tiny", kwargs={"num_classes": 4}, checkpoint=str(tmp_path / "w.pth"))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="head"):
        open_model(model="coc_tiny", kwargs={"num_classes": 5}, checkpoint=str(tmp_path / "w.pth"))


def test_one_of_run_and_model():
    for given in ({}, {"run": "x", "model": "coc_tiny"}):
        with pytest.raises(ValueError, match="one of --run and --model"):
            open_model(**given)
    with pytest.raises(ValueError, match="a run has its own weights"):
        open_model(run="x", checkpoint="y")


def test_models_of_clouds_are_named():
    with pytest.raises(ValueError, match="pointmlp_elite takes point clouds, expected a model of images"):
        open_model(model="pointmlp_elite")


def test_imagenet_names():
    with pytest.warns(UserWarning):
        _, info = open_model(model="test_vit")
    assert len(info["classes"]) == 1000 and info["classes"][0] == "tench"


def test_a_setting_of_another_version():
    with pytest.raises(ValueError, match="unknown data setting 'nonsense'"):
        IMAGES.data_config({"path": "w", "data": {"nonsense": 1}})


def test_a_model_by_name_needs_a_task():
    with pytest.raises(ValueError, match="--model coc_tiny does not say its task; expected one of classify_images, cl"):
        inference.open_model(model="coc_tiny")
