"""Losses of boxes and masks, written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix.nn.heads.detect.roi_heads import RoIHeads
from pointmix.ops.roi_align import roi_align

F64 = dict(dtype=torch.float64)


def heads(*, beta: float = 0.0, binary_masks: bool = True) -> RoIHeads:
    settings = dict(fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=9, positive_fraction=0.25)
    settings |= dict(bbox_reg_weights=None, score_thresh=0.05, nms_thresh=0.5, detections_per_img=9)
    return RoIHeads(None, None, None, box_loss_beta=beta, binary_masks=binary_masks, **settings)


@pytest.mark.parametrize("beta", [0.0, 1 / 9])
def test_losses_of_boxes_are_of_their_class(beta):
    logits, deltas, wanted = torch.randn(4, 3, **F64), torch.randn(4, 12, **F64), torch.randn(4, 4, **F64)
    losses = heads(beta=beta).box_losses(logits, deltas, torch.tensor([0, 2, 1, 0]), wanted)
    off = torch.stack([deltas[1, 8:] - wanted[1], deltas[2, 4:8] - wanted[2]]).abs()
    off = torch.where(off < beta, off**2 / (2 * beta), off - beta / 2) if beta else off
    chosen = logits.log_softmax(1)[torch.arange(4), torch.tensor([0, 2, 1, 0])]
    expected = dict(loss_classifier=-chosen.mean(), loss_box_reg=off.sum() / 4)
    torch.testing.assert_close(losses, expected)


def test_without_proposals_losses_are_zero():
    losses = heads().box_losses(torch.zeros(0, 3), torch.zeros(0, 12), torch.zeros(0).long(), torch.zeros(0, 4))
    assert all(loss == 0 for loss in losses.values())


@pytest.mark.parametrize("binary", [True, False])
def test_masks_are_compared_with_crops_of_their_object(binary):
    y, x = torch.meshgrid(torch.arange(30), torch.arange(40), indexing="ij")
    masks = torch.stack([(x - 12) ** 2 + (y - 15) ** 2 < 90, x + y > 30]).to(torch.uint8)
    boxes = [torch.tensor([[3.0, 5, 22, 24.5]], **F64), torch.tensor([[10.2, 3, 35, 29], [4, 4, 9, 9.0]], **F64)]
    matched, labels = [torch.tensor([0]), torch.tensor([1, 0])], torch.tensor([2, 1, 1])
    logits = torch.randn(3, 2, 28, 28, **F64)
    loss = heads(binary_masks=binary).mask_loss(logits, [masks, masks], boxes, matched, labels)
    every, index = torch.cat(boxes), torch.cat(matched)
    crops = roi_align(masks[:, None].double(), every, index, 28, aligned=binary)[:, 0]
    assert ((crops > 0) & (crops < 1)).any()
    crops = (crops >= 0.5).double() if binary else crops
    expected = F.binary_cross_entropy_with_logits(logits[torch.arange(3), labels - 1], crops)
    torch.testing.assert_close(loss, expected)
