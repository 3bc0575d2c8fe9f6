"""Features of boxes from the map that suits their size."""

from __future__ import annotations

import pytest
import torch

from pointmix.nn.heads.detect.boxes import BoxPooler, BoxPredictor
from pointmix.ops.roi_align import roi_align

F64 = dict(dtype=torch.float64)


@pytest.mark.parametrize("scale", [224, 56])
def test_each_box_is_read_from_its_map(scale):
    maps = [torch.randn(2, 3, 64 // 2**i, 96 // 2**i, **F64) for i in range(4)]  # strides 4 to 32
    sides = [scale / 8, scale / 4.1, scale / 3.9, scale / 2.1, scale / 1.9, 1.01 * scale, 1.99 * scale, 2.01 * scale]
    boxes = torch.tensor([[1.0, 2, 1 + side, 2 + side] for side in sides], **F64)
    levels = [0, 0, 0, 0, 1, 2, 2, 3]
    pooler = BoxPooler(7, first_level=2, levels=4, canonical_scale=scale, sampling_ratio=0, aligned=True)
    order = torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])
    found = pooler(maps, [boxes[order], boxes[:3]])
    assert found.shape == (11, 3, 7, 7)
    for place, (i, image) in enumerate([*((int(i), 0) for i in order), *((i, 1) for i in range(3))]):
        level = levels[i]
        one = roi_align(maps[level], boxes[i : i + 1], torch.tensor([image]), 7, scale=0.25 / 2**level)
        torch.testing.assert_close(found[place], one[0])
    assert pooler(maps, [boxes[:0], boxes[:0]]).shape == (0, 3, 7, 7)


def test_deltas_of_the_background_are_zero():
    predictor = BoxPredictor(6, 3)
    logits, deltas = predictor(torch.randn(5, 6))
    assert logits.shape == (5, 4) and deltas.shape == (5, 16)
    assert not deltas[:, :4].any() and deltas[:, 4:].all()
    logits, deltas = predictor.bfloat16()(torch.randn(5, 6).bfloat16())
    assert logits.dtype == deltas.dtype == torch.float32
