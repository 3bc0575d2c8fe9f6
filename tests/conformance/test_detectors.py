"""The laws for every model of images as a detector. Narrow, one block a stage."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import timm
import torch
from torch import Tensor

import pointmix
from pointmix import PointSet
from pointmix.profile.published import DETECTORS

MODELS = [name for name in pointmix.list_models() if timm.get_pretrained_cfg(name).input_size]
DISTINCT = ("coc_tiny", "coc_tiny2", "fec_small", "hcformer_tiny")  # others differ in width, depth and centers
CLUSTERS = dict(depths=(1, 1, 1, 1), dims=(16, 24, 32, 48), heads=2, head_dim=8, layer_scale=1.0)
HEADS = dict(neck_dim=12, box_dim=16, mask_dim=8, anchor_sizes=(8, 16, 32, 64, 128), canonical_scale=64)
SIZE = (64, 96)
F64 = dict(dtype=torch.float64)


class Target(NamedTuple):
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None


def target(*boxes: tuple[int, int, int, int]) -> Target:
    """Objects that fill the middle of their boxes."""
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1 + (y2 - y1) // 4 : y2, x1 : x2 - (x2 - x1) // 4] = 1
    return Target(torch.tensor(boxes).view(-1, 4).double(), torch.arange(len(boxes)) % 4, masks)


TARGETS = [target((4, 6, 40, 50), (50, 10, 90, 60), (30, 30, 44, 40)), target(), target((20, 8, 60, 40))]


def detector_of(name: str, **kwargs) -> torch.nn.Module:
    """A detector whose branches all matter and whose outputs differ from place to place."""
    torch.manual_seed(1)
    network = pointmix.create_detector(name, 4, **(HEADS | CLUSTERS | kwargs)).double()
    with torch.no_grad():
        for key, p in network.named_parameters():
            if key.endswith("alpha") or ".alpha_" in key:
                p.fill_(2.0)
            elif "head.bbox_pred" in key or "box_predictor.bbox_pred" in key:
                p.normal_(std=0.05)
            elif key.startswith(("rpn", "roi_heads.box_predictor")):
                p.normal_(std=0.3)
            elif p.ndim == 1 or ".norm" in key or key.endswith(("patch", "window")):
                p.add_(0.1 * torch.randn_like(p))
    return network


def images(count: int = 3) -> PointSet:
    return PointSet.from_batch(torch.randn(count, 3, *SIZE, **F64))


def losses_of(network: torch.nn.Module, points: PointSet, targets: list[Target]) -> dict[str, Tensor]:
    torch.manual_seed(2)  # anchors and proposals are sampled
    return network.train()(points, None, targets)


def detect(network: torch.nn.Module, points: PointSet) -> list:
    with torch.no_grad():
        return network.eval()(points)


def same(found: list, expected: list) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert len(one.boxes) > 0
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name, partial", [*((name, False) for name in MODELS), *((name, True) for name in DISTINCT)])
def test_it_trains_and_detects(name, partial):
    """On whole images and on images of which half of the patches are hidden; one image has no objects."""
    network, points = detector_of(name), images()
    if partial:
        hidden = torch.rand(3, 8, 12).repeat_interleave(8, 1).repeat_interleave(8, 2) < 0.5
        hidden[:, 0, 0] = False
        points = points.subset(~hidden.flatten())
    losses = losses_of(network, points, TARGETS)
    assert all(loss.isfinite() and loss > 0 for loss in losses.values()) and len(losses) == 5
    sum(losses.values()).backward()
    gradients = {key: p.grad for key, p in network.named_parameters() if p.requires_grad}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    found = detect(network, points)
    assert [len(x.masks) for x in found] == [len(x.boxes) for x in found] and all(len(x.boxes) for x in found)


@pytest.mark.parametrize(
    "name, kwargs",
    [
        ("coc_tiny", {}),
        ("coc_tiny", dict(centers_per_side=(7, 7, 7, 7))),
        *((name, DETECTORS[name].kwargs) for name in ("fec_small", "hcformer_tiny")),
    ],
    ids=str,
)
def test_grid_is_sparse_grid(name, kwargs):
    network, points, results = detector_of(name, **kwargs), images(), []
    weights = [p for p in network.parameters() if p.requires_grad]
    for x in (points, points.as_sparse()):
        losses = losses_of(network, x, TARGETS)
        results.append([*losses.values(), *torch.autograd.grad(sum(losses.values()), weights)])
    for grid, few in zip(*results, strict=True):
        torch.testing.assert_close(few, grid, rtol=1e-9, atol=1e-9)
    same(detect(network, points.as_sparse()), detect(network, points))


@pytest.mark.parametrize("name", DISTINCT)
def test_other_images_do_not_matter(name):
    network, points = detector_of(name), images()
    same(detect(network, points), [detect(network, one)[0] for one in points.unbind()])


def test_order_of_objects_does_not_matter():
    network, points = detector_of("coc_tiny"), images()
    network.roi_heads.fg_bg_sampler.batch_size_per_image = 100_000  # all proposals, which objects are among
    turned = [Target(t.boxes.flip(0), t.labels.flip(0), t.masks.flip(0)) for t in TARGETS]
    losses = losses_of(network, points, TARGETS)
    for key, loss in losses_of(network, points, turned).items():
        torch.testing.assert_close(loss, losses[key], rtol=1e-9, atol=1e-9)
