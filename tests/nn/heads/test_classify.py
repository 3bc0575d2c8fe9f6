"""Pooling and the linear classifier, in a network of nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pointmix import PointSet
from pointmix.nn.heads.classify import ClassifierBase, pooled


class Network(ClassifierBase):
    poolings = ("avg", "max", "")

    def __init__(self, num_classes: int = 4, global_pool: str = "avg", drop_rate: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.set_classifier(3, num_classes, global_pool=global_pool, drop_rate=drop_rate)
        self.double()


@pytest.fixture
def points() -> PointSet:
    ptr = torch.tensor([0, 5, 6, 9])
    return PointSet(torch.rand(9, 2).double(), torch.randn(9, 3).double(), ptr)


def test_pooling_over_the_points_of_each_set(points):
    sets = points.feat.split(points.ptr.diff().tolist())
    torch.testing.assert_close(pooled(points, "avg"), torch.stack([x.mean(0) for x in sets]))
    torch.testing.assert_close(pooled(points, "max"), torch.stack([x.amax(0) for x in sets]))
    assert pooled(points, "") is points.feat


def test_logits_and_what_is_before_them(points):
    net = Network()
    features = net.forward_head(points, pre_logits=True)
    assert torch.equal(features, pooled(points, "avg"))
    assert torch.equal(net.forward_head(points), net.get_classifier()(features))


def test_without_pooling_every_point_is_classified(points):
    net, image = Network(global_pool=""), torch.randn(2, 3, 4, 5).double()
    out = net.forward_head(points)
    assert torch.equal(out.feat, net.head(points.feat)) and torch.equal(out.pos, points.pos)
    expected = nn.functional.conv2d(image, net.head.weight[..., None, None], net.head.bias)
    torch.testing.assert_close(net.forward_head(image), expected)


def test_names_in_state_dicts_are_timms():
    assert set(Network().state_dict()) == {"scale", "head.weight", "head.bias"}
    assert set(Network(num_classes=0).state_dict()) == {"scale"}


def test_a_new_classifier(points):
    net = Network(drop_rate=0.5)
    net.reset_classifier(7, global_pool="max")
    assert (net.num_classes, net.global_pool, net.head.weight.shape) == (7, "max", (7, 3))
    assert net.head.weight.dtype == torch.float64 and net.head_drop.p == 0.5
    net.reset_classifier(0)
    assert isinstance(net.head, nn.Identity) and net.global_pool == "max"
    assert torch.equal(net.eval().forward_head(points), pooled(points, "max"))


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(global_pool="sum"), "^global_pool must be 'avg' or 'max' or '', got 'sum'$"),
        (dict(num_classes=-1), "num_classes must be at least 0, got -1"),
        (dict(drop_rate=2.0), "drop_rate must be at least 0 and below 1, got 2.0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Network(**settings)
