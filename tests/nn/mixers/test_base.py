"""A mixer from outside the package: the smallest one, in a network, trained, on any layout, counted and explained."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import generate_default_cfgs, register_model
from torch import nn

import pointmix
from pointmix import PointSet
from pointmix.models.backbone import PointBackbone
from pointmix.models.registry import IMAGES, build
from pointmix.nn.block import Block
from pointmix.nn.mixers.base import ClusteringMixer, Mixer
from pointmix.profile.macs import Macs, count, linear_macs


class CenterMean(nn.Module):
    """Each point receives a linear map of the mean of its window's centers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, plan, sets):
        centers = plan.pool_centers(plan.window_partition(x))  # (S, M, C)
        exists = torch.ones_like(centers[..., :1]) if plan.center_valid is None else plan.center_valid[..., None]
        mean = (centers * exists).sum(1) / exists.sum(1)  # (S, C)
        rows = torch.zeros_like(plan.window_partition(x)) + plan.broadcast(self.proj(mean))  # (R, L, C)
        return plan.window_reverse(rows)

    def macs(self, size):
        return linear_macs(size.windows, self.proj) + Macs(other=size.points * self.proj.in_features)


default_cfgs = generate_default_cfgs({"center_mean_tiny.untrained": IMAGES})


@register_model
def center_mean_tiny(pretrained: bool = False, **kwargs) -> nn.Module:
    settings = dict(depths=(2, 1), dims=(8, 12), mlp_ratios=(2, 2), windows_per_side=(4, 2), centers_per_side=(2, 1))
    settings |= dict(mixer=lambda stage, dim: CenterMean(dim))
    return build(PointBackbone, "center_mean_tiny", pretrained, **(settings | kwargs))


@pytest.fixture
def model() -> PointBackbone:
    torch.manual_seed(0)
    return pointmix.create_model("center_mean_tiny", num_classes=3, layer_scale=1.0)


def test_is_a_mixer_that_does_not_cluster():
    assert isinstance(CenterMean(4), Mixer) and not isinstance(CenterMean(4), ClusteringMixer)
    assert timm.is_model("center_mean_tiny")


def test_a_step_of_training_lowers_the_loss(model):
    images, labels = torch.randn(6, 3, 32, 24), torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), []
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert all((block.mixer.proj.weight.grad != 0).any() for stage in model.stages for block in stage.blocks)


@pytest.mark.parametrize("size", [(32, 32), (37, 21)], ids=str)
def test_grid_is_sparse_grid(model, size):
    points = PointSet.from_images(torch.randn(2, 3, *size).double())
    torch.testing.assert_close(model.double()(points), model(points.as_sparse()))


def test_partial_images_and_clouds(model):
    masks = [torch.rand(32, 32) < 0.3, torch.rand(20, 28) < 0.5]
    points = PointSet.from_images([torch.randn(3, *mask.shape) for mask in masks], masks)
    for x in (points, points.as_cloud()):
        alone = torch.cat([model.eval()(one) for one in x.unbind()])
        torch.testing.assert_close(model(x), alone, rtol=1e-4, atol=1e-5)


def test_multiply_adds_are_those_of_its_equations(model):
    image = torch.randn(1, 3, 64, 64)  # 256 points in 16 windows, then 64 points in 4
    of_mixers = count(pointmix.create_model("center_mean_tiny", num_classes=3), image)
    without = count(PointBackbone(**settings_of(model), mixer=lambda stage, dim: None, num_classes=3), image)
    more = [a.macs.linear - b.macs.linear for a, b in zip(of_mixers, without, strict=True)]
    assert more == [2 * 16 * 8 * 8, 4 * 12 * 12, 0]


def settings_of(model: PointBackbone) -> dict[str, tuple]:
    stages = model.stages
    return dict(
        depths=tuple(len(stage.blocks) for stage in stages),
        dims=tuple(info["num_chs"] for info in model.feature_info),
        mlp_ratios=(2,) * len(stages),
        windows_per_side=tuple(stage.windows_per_side for stage in stages),
        centers_per_side=tuple(stage.centers_per_side for stage in stages),
    )


def test_nothing_is_explained_without_an_assignment(model):
    images = torch.randn(2, 3, 32, 32)
    assert model.explain(images) == []
    assert pointmix.create_model("coc_tiny", cluster=False).explain(images) == []


def test_only_blocks_that_cluster_are_explained():
    from pointmix.nn.mixers.context import ContextCluster

    def mixer(stage: int, dim: int) -> nn.Module:
        return CenterMean(dim) if stage == 0 else ContextCluster(dim, heads=1, head_dim=4)

    settings = dict(depths=(1, 2), dims=(8, 12), mlp_ratios=(2, 2), windows_per_side=(4, 2), centers_per_side=(2, 1))
    found = PointBackbone(mixer=mixer, **settings).explain(torch.randn(2, 3, 32, 32))
    assert [a.name for a in found] == ["stages.1.blocks.0", "stages.1.blocks.1"]


def test_a_network_without_mixers_trains_and_is_counted():
    model = pointmix.create_model("coc_tiny", cluster=False, num_classes=3)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert sum(part.parameters for part in count(model, torch.randn(1, 3, 32, 32))) == sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize("mixer, message", [(nn.Identity(), "no macs"), (lambda x, plan, sets: x, "not an nn.Module")])
def test_what_is_no_mixer_is_refused(mixer, message):
    with pytest.raises(ValueError, match=f"^mixer .* does not fit: {message}"):
        Block(8, mixer, mlp_ratio=2, drop_path=0.0, layer_scale=1.0)
