from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pointmix
from pointmix import PointSet
from pointmix.engine.train import train
from pointmix.tasks.base import get_task
from pointmix.tasks.checks import try_input
from pointmix.tasks.config import ModelConfig


def try_images(model, name, *, in_chans, img_size, **options):
    task = get_task("classify_images")
    blank = task.example_input({"in_chans": in_chans, "img_size": img_size})
    try_input(model, name, blank, what=f"images of {in_chans}x{img_size}x{img_size}", **options)


def test_images_that_a_model_cannot_take_are_refused_in_one_line():
    model = nn.Sequential(nn.Conv2d(3, 4, 7)).train()
    try_images(model, "net", in_chans=3, img_size=7)
    for channels, size in ((3, 6), (1, 7)):
        with pytest.raises(ValueError, match=f"net does not take images of {channels}x{size}x{size}: ") as e:
            try_images(model, "net", in_chans=channels, img_size=size)
        assert "\n" not in str(e.value) and model.training


def test_a_network_that_keeps_the_map_is_not_trained(tiny_config, monkeypatch):
    cfg = tiny_config(kwargs={"global_pool": ""}, data={"img_size": 32})
    monkeypatch.setattr("pointmix.engine.train.fit", None)
    message = r"coc_tiny gives \(1, 10, \d, \d\) for one of images of 1x32x32, expected \(1, 10\), .* global_pool"
    with pytest.raises(ValueError, match=message) as e:
        train(cfg)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name, size", [("resnet10t", 32), ("pointmlp_elite", None)])
def test_a_network_with_batch_norm_refuses_batches_of_one_before_training(name, size):
    model = pointmix.create_model(name, num_classes=3)
    blank = PointSet.from_points(torch.rand(20, 3)) if size is None else torch.zeros(1, 3, size, size)
    before = copy.deepcopy(model.state_dict())
    try_input(model, name, blank, what="it")
    with pytest.raises(ValueError, match=f"batch_size must be at least 2 for {name}, whose BatchNorm is over a batch"):
        try_input(model, name, blank, what="it", single=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name, size", [("resnet10t", 64), ("coc_tiny", 32)])
def test_a_batch_of_one_with_several_values_per_channel_is_taken(name, size):
    model = pointmix.create_model(name, num_classes=3)
    try_images(model, name, in_chans=3, img_size=size, single=True)


def test_a_run_with_batches_of_one_names_batch_size_before_its_first_step(tiny_config, monkeypatch):
    mix = {"mixup": 0, "cutmix": 0}
    cfg = tiny_config(data={"img_size": 32}, model=ModelConfig("resnet10t"), mix=mix, batch_size=1)
    monkeypatch.setattr("pointmix.engine.train.fit", None)
    with pytest.raises(ValueError, match="batch_size must be at least 2 for resnet10t"):
        train(cfg)


def test_images_that_fit_into_no_memory_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^images of 3x99999999x99999999 do not fit into memory$"):
        try_images(nn.Conv2d(3, 4, 7), "net", in_chans=3, img_size=99_999_999)

    def explode(*_):
        torch.empty(10**17)

    net = nn.Conv2d(3, 4, 7)
    net.register_forward_hook(explode)
    with pytest.raises(ValueError, match=r"^net does not take images of 3x9x9: they need more memory than there is$"):
        try_images(net, "net", in_chans=3, img_size=9)
