"""Anchors, matches and the loss of proposals."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import _utils as torchvision_utils
from torchvision.models.detection import anchor_utils
from torchvision.models.detection.image_list import ImageList

from pointmix.nn.heads.detect.rpn import AnchorGenerator, Matcher, RegionProposalNetwork, RPNHead

F64 = dict(dtype=torch.float64)
STRIDES = (4, 8, 16)


def anchors_of(rounded: bool) -> AnchorGenerator:
    return AnchorGenerator((8, 20, 32), (0.5, 1.0, 2.0), strides=STRIDES, rounded=rounded)


@pytest.mark.parametrize("size", [(64, 96), (50, 33)], ids=str)
def test_anchors_are_centered_at_the_corners_of_cells(size):
    maps = [torch.zeros(2, 1, -(-size[0] // s), -(-size[1] // s)) for s in STRIDES]
    first, second = anchors_of(False)(ImageList(maps[0], [size, size]), maps)
    expected = []
    for x, stride, side in zip(maps, STRIDES, (8, 20, 32), strict=True):
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                for ratio in (0.5, 1.0, 2.0):
                    width, height = side / ratio**0.5, side * ratio**0.5
                    y, z = row * stride, column * stride
                    expected.append([z - width / 2, y - height / 2, z + width / 2, y + height / 2])
    torch.testing.assert_close(first, torch.tensor(expected))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounded_anchors_are_torchvisions(dtype):
    maps = [torch.zeros(1, 1, 64 // s, 96 // s, dtype=dtype) for s in STRIDES]
    images = ImageList(torch.zeros(1, 3, 64, 96), [(64, 96)])
    theirs = anchor_utils.AnchorGenerator(((8,), (20,), (32,)), ((0.5, 1.0, 2.0),) * 3)(images, maps)
    found = anchors_of(True)(images, maps)
    assert found[0].dtype == dtype
    torch.testing.assert_close(found, theirs, rtol=0, atol=0)


def test_anchors_of_half_precision_are_float32():
    maps = [torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)] * 3
    assert anchors_of(False)(ImageList(maps[0], [(8, 8)]), maps)[0].dtype == torch.float32


def test_best_anchors_are_matched_from_a_threshold():
    #                    anchors:  matched  between  best of the second  best of the third
    iou = torch.tensor([[0.8, 0.5, 0.0, 0.0], [0.0, 0.0, 0.35, 0.1], [0.1, 0.0, 0.0, 0.2]])
    assert Matcher(0.7, 0.3, lowest=0.3)(iou.clone()).tolist() == [0, -2, 1, -1]
    any_match = torchvision_utils.Matcher(0.7, 0.3, allow_low_quality_matches=True)
    assert Matcher(0.7, 0.3, lowest=0.0)(iou.clone()).tolist() == any_match(iou.clone()).tolist() == [0, -2, 1, 2]
    assert Matcher(0.7, 0.3, lowest=0.9)(iou[1:].clone()).tolist() == [-1, -1, -2, -1]


@pytest.mark.parametrize("beta", [0.0, 1 / 9])
def test_losses_are_sums_over_samples(beta):
    network = RegionProposalNetwork(
        anchors_of(False), RPNHead(4, 3), fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size_per_image=8,
        positive_fraction=0.5, pre_nms_top_n={}, post_nms_top_n={}, nms_thresh=0.7, box_loss_beta=beta,
        low_quality_iou=0.3,
    )  # fmt: skip
    scores, deltas, wanted = torch.randn(6, 1, **F64), torch.randn(6, 4, **F64), torch.randn(6, 4, **F64)
    labels = torch.tensor([1.0, 0, -1, 0, 1, 0])  # all but the third are sampled
    objects, boxes = network.compute_loss(scores, deltas, [labels[:3], labels[3:]], wanted.split(3))
    p = scores.sigmoid().flatten()
    entropy = -sum((p[i] if labels[i] else 1 - p[i]).log() for i in (0, 1, 3, 4, 5)) / 5
    off = (deltas - wanted)[[0, 4]].abs()
    off = torch.where(off < beta, off**2 / (2 * beta), off - beta / 2) if beta else off
    torch.testing.assert_close((objects, boxes), (entropy, off.sum() / 5))
