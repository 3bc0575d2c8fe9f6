"""RoIAlign against torchvision's plain form."""

from __future__ import annotations

import inspect

import pytest
import torch

from pointmix.ops.roi_align import ENTRIES, crop_masks, roi_align

F64 = dict(dtype=torch.float64)


def plain(x, boxes, batch, bins, *, scale=1.0, sampling_ratio=0, aligned=True):
    """torchvision's form in tensor operations, which it would compile."""
    from torchvision.ops.roi_align import _roi_align

    rois = torch.cat([batch[:, None].to(boxes), boxes], dim=1)
    return inspect.unwrap(_roi_align)(x, rois, scale, bins, bins, sampling_ratio, aligned)


BOXES = {
    "inside": [[10, 8, 40, 30], [3.3, 4.7, 60.1, 49.2], [0, 0, 64, 52]],
    "partly outside": [[-9, -7.5, 20, 18], [50, 40, 80, 75], [-5, 10, 70, 20]],
    "tiny": [[10, 10, 10.4, 10.2], [63.7, 51.8, 64, 52], [4, 4, 5, 30]],
    "none": [],
}


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 5])
@pytest.mark.parametrize("boxes", BOXES)
def test_values_and_gradients_are_torchvisions(boxes, sampling_ratio, aligned):
    boxes = torch.tensor(BOXES[boxes], **F64).view(-1, 4)
    batch, x = torch.arange(len(boxes)) % 2, torch.randn(2, 3, 13, 16, **F64, requires_grad=True)
    options = dict(scale=0.25, sampling_ratio=sampling_ratio, aligned=aligned)
    expected = plain(x, boxes, batch, 4, **options)
    for memory in (torch.contiguous_format, torch.channels_last):
        found = roi_align(x.contiguous(memory_format=memory), boxes, batch, 4, **options)
        assert found.shape == (len(boxes), 3, 4, 4)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        probe = torch.randn_like(found)
        gradients = [torch.autograd.grad((out * probe).sum(), x, retain_graph=True)[0] for out in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_boxes_without_area_have_finite_gradients(sampling_ratio):
    boxes, batch = torch.tensor([[7.0, 7, 7, 7], [9, 9, 9, 20]], **F64), torch.zeros(2).long()
    x = torch.randn(1, 3, 13, 16, **F64, requires_grad=True)
    found = roi_align(x, boxes, batch, 4, scale=0.25, sampling_ratio=sampling_ratio)
    torch.testing.assert_close(found, plain(x, boxes, batch, 4, scale=0.25, sampling_ratio=sampling_ratio))
    assert torch.autograd.grad(found.sum(), x)[0].isfinite().all()  # NaN in torchvision's plain form: 0 / 0


def test_the_weights_of_a_bin_larger_than_the_map_sum_to_one():
    boxes = torch.tensor([[-500.0, -90, 700, 80], [-1e9, -1e9, 1e9, 1e9]], **F64)
    found = roi_align(torch.ones(1, 1, 5, 8, **F64), boxes, torch.zeros(2).long(), 3)
    torch.testing.assert_close(found, torch.ones(2, 1, 3, 3, **F64))


def test_many_boxes_are_summed_in_parts(monkeypatch):
    x, corner = torch.randn(1, 2, 30, 40, **F64), 20 * torch.rand(50, 2, **F64)
    boxes, batch = torch.cat([corner, corner + 1 + 19 * torch.rand(50, 2, **F64)], dim=1), torch.zeros(50).long()
    whole = roi_align(x, boxes, batch, 7)
    monkeypatch.setattr("pointmix.ops.roi_align.ENTRIES", 5000)
    assert ENTRIES > 5000
    torch.testing.assert_close(roi_align(x, boxes, batch, 7), whole, rtol=0, atol=0)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("boxes", BOXES)
def test_masks_are_cropped_as_maps_of_one_channel(boxes, aligned):
    boxes = torch.tensor(BOXES[boxes], **F64).view(-1, 4)
    masks, index = (torch.rand(3, 52, 64) < 0.5).to(torch.uint8), torch.arange(len(boxes)) % 3
    found = crop_masks(masks, boxes, index, 28, aligned=aligned)
    expected = roi_align(masks[:, None].double(), boxes, index, 28, aligned=aligned)[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_half_precision_is_summed_in_float32():
    x, boxes = torch.randn(1, 4, 20, 20).bfloat16(), torch.tensor([[1.0, 2, 17, 19]])
    found = roi_align(x, boxes, torch.zeros(1).long(), 2)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, roi_align(x.float(), boxes, torch.zeros(1).long(), 2).bfloat16())


def test_the_compiled_operator_is_used_where_it_is(monkeypatch):
    class Operators:
        @staticmethod
        def roi_align(x, rois, scale, rows, columns, sampling_ratio, aligned):
            return plain(x, rois[:, 1:], rois[:, 0].long(), rows, scale=scale, sampling_ratio=sampling_ratio)

    x, boxes, batch = torch.randn(2, 3, 9, 9, **F64), torch.tensor([[1.0, 2, 8, 7]], **F64), torch.ones(1).long()
    masks = (torch.rand(2, 9, 9) < 0.5).to(torch.uint8)
    expected = roi_align(x, boxes, batch, 3), crop_masks(masks, boxes, batch, 5)
    monkeypatch.setattr(torch.ops, "torchvision", Operators)
    torch.testing.assert_close((roi_align(x, boxes, batch, 3), crop_masks(masks, boxes, batch, 5)), expected)
