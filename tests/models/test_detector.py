"""Detectors: the papers' settings, inputs and outputs, and what is refused."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import pointmix
from pointmix import PointSet
from pointmix.models.detector import TORCHVISION, Detections

F64 = dict(dtype=torch.float64)
PARAMETERS = {  # with 80 classes, / 2^20 as published: 24.0, 25.5, 34.1, 50.8; 24.3, 33.1, 47.1
    "hcformer_nano": 25_138_594,
    "hcformer_tiny": 26_694_210,
    "hcformer_small": 35_763_702,
    "hcformer_medium": 53_303_788,
    "fec_small": 25_469_048,
    "fec_base": 34_742_280,
    "fec_large": 49_375_776,
    "coc_tiny": 25_312_104,
    "coc_small": 34_312_456,
    "coc_medium": 48_945_952,
}
SIZE = (64, 96)


class Target(NamedTuple):
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None


def target(boxes: list[list[float]], labels: list[int], size: tuple[int, int] = SIZE, masks: bool = True) -> Target:
    """Objects whose masks are ellipses in their boxes."""
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    if not masks:
        return Target(corners, torch.tensor(labels, dtype=torch.int64))
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    center, side = (corners[:, 2:] + corners[:, :2]) / 2, (corners[:, 2:] - corners[:, :2]) / 2
    place = torch.stack([x, y], dim=-1) - center[:, None, None]
    inside = (place / side[:, None, None]).square().sum(-1) <= 1
    return Target(corners, torch.tensor(labels, dtype=torch.int64), inside.to(torch.uint8))


THIN = [2, 55, 94, 60]  # which no anchor overlaps by 0.3
TARGETS = [target([[5, 5, 40, 50], [50, 10, 90, 60], THIN], [1, 3, 2]), target([[20, 20, 44, 40]], [0])]
CLUSTERS = dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), heads=2, head_dim=4)
SMALL = dict(neck_dim=16, box_dim=32, mask_dim=8, anchor_sizes=(8, 16, 32, 64, 128), canonical_scale=64)


def small(name: str = "coc_tiny", num_classes: int = 4, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    narrow = {} if name.startswith("resnet") else CLUSTERS
    return pointmix.create_detector(name, num_classes, **(SMALL | narrow | kwargs))


def spread(network: nn.Module) -> nn.Module:
    """Weights with which classes, boxes and masks differ between proposals."""
    heads = network.roi_heads
    for layer, std in ((heads.box_predictor.cls_score, 0.5), (heads.box_predictor.bbox_pred, 0.3)):
        nn.init.normal_(layer.weight, std=std)
        nn.init.normal_(layer.bias, std=0.1)
    for layer in network.rpn.head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.1)
    return network


@pytest.mark.parametrize("name, count", PARAMETERS.items(), ids=str)
def test_parameters_are_those_of_the_papers(name, count):
    with torch.device("meta"):
        network = pointmix.create_detector(name, 80)
    assert sum(p.numel() for p in network.parameters()) == count


# ---- settings --------------------------------------------------------------------------------------------------


def test_each_setting_of_the_papers_changes_something():
    torch.manual_seed(0)
    images = torch.randn(2, 3, *SIZE)

    def losses(**kwargs):
        network = spread(small(**kwargs))
        torch.manual_seed(1)
        return network(images, None, TARGETS)

    papers = losses()
    for name, value in TORCHVISION.items():
        if name not in ("train_proposals", "init"):  # few proposals are left here; initial weights are tested below
            assert any(loss != papers[key] for key, loss in losses(**{name: value}).items()), name
    assert small(**TORCHVISION).rpn._post_nms_top_n == dict(training=2000, testing=1000)
    assert small().rpn._post_nms_top_n == dict(training=1000, testing=1000)


def test_initial_weights_are_those_of_the_papers():
    network = pointmix.create_detector("coc_tiny", 80)
    heads = network.roi_heads
    for layer in (*network.neck.smooth, heads.box_head.fc6, heads.box_head.fc7):
        fan_in, fan_out = layer.weight[0].numel(), layer.weight.shape[0] * layer.weight[0, 0].numel()
        bound = (6 / (fan_in + fan_out)) ** 0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound and not layer.bias.any()
    known = {
        heads.box_predictor.cls_score: 0.01,
        heads.box_predictor.bbox_pred: 0.001,
        network.rpn.head.cls_logits: 0.01,
    }
    known |= {heads.mask_predictor.mask_fcn_logits: (2 / 80) ** 0.5, heads.mask_head[0][0]: (2 / 9 / 256) ** 0.5}
    for layer, std in known.items():
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1) and not layer.bias.any()
    other = pointmix.create_detector("coc_tiny", 80, **TORCHVISION).roi_heads
    assert other.box_predictor.bbox_pred.weight.std() > 0.01 and other.box_head.fc6.bias.any()


# ---- inputs and outputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("size", [(64, 96), (50, 70), (9, 33)], ids=str)
def test_detections_are_within_their_image(size, masks):
    network = spread(small(masks=masks, max_detections=20)).eval()
    sizes = torch.tensor([size, (size[0] - 5, 31)])
    with torch.no_grad():
        found = network(torch.randn(2, 3, *size), sizes)
    for detections, (height, width) in zip(found, sizes.tolist(), strict=True):
        assert isinstance(detections, Detections)
        boxes, labels, scores, bins = detections
        assert 0 < len(boxes) <= 20 and boxes.shape[1:] == (4,) and boxes.dtype == torch.float32
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2)).all()
        assert labels.dtype == torch.int64 and 0 <= labels.min() and labels.max() < 4
        assert (scores.diff() <= 0).all() and (scores > 0.05).all()
        assert (
            bins is None
            if not masks
            else bins.shape == (len(boxes), 28, 28) and (0 <= bins).all() and (bins <= 1).all()
        )


def test_nothing_is_found_in_an_image():
    network = small(score_threshold=0.9).eval()
    with torch.no_grad():
        (found,) = network(torch.randn(1, 3, *SIZE))
    assert found.boxes.shape == (0, 4) and found.labels.shape == found.scores.shape == (0,)
    assert found.masks.shape == (0, 28, 28)


def test_images_without_objects_are_trained_on():
    empty = target([], [])
    for targets in ([empty, empty], [TARGETS[0], empty]):
        network = small().train()
        losses = network(torch.randn(2, 3, *SIZE), None, targets)
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        gradients = {key: p.grad for key, p in network.named_parameters() if p.requires_grad}
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
        assert (losses["loss_mask"] == 0) == (targets[0] is empty)


def test_absent_cells_are_zero_on_the_maps():
    network, image, mask = small().eval(), torch.randn(3, *SIZE), torch.zeros(SIZE)
    mask[:32, :32] = 1
    maps = network.maps(network.as_points(PointSet.from_image(image, mask)))
    assert [x.shape[2:] for x in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for x in maps:
        present = (x != 0).any(1)[0]
        assert present[: x.shape[2] // 2, : x.shape[3] // 3].all() and 6 * present.sum() == present.numel()


@pytest.mark.parametrize("name", ["coc_tiny", "fec_small", "hcformer_nano", "resnet18"])
def test_every_parameter_is_trained(name):
    torch.manual_seed(0)
    kwargs = {} if name == "resnet18" else dict(depths=(1, 1, 1, 1))
    network = spread(pointmix.create_detector(name, 4, **(SMALL | kwargs))).train()
    for p in network.parameters():
        if p.ndim == 1:
            p.data.add_(0.1)  # some norms start at a weight of zero
    sum(network(torch.randn(2, 3, *SIZE), None, TARGETS).values()).backward()
    free = {key for key, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # one window has one center at the third stage of HCFormer, so its similarity has no effect
    single = {f"backbone.stages.2.blocks.0.mixer.{part}_window" for part in ("alpha", "bias")}
    assert free == (single if name.startswith("hcformer") else set())


def test_checkpointing_changes_nothing():
    images, results = torch.randn(2, 3, *SIZE), []
    for enable in (False, True):
        network = small().train()
        network.set_grad_checkpointing(enable)
        torch.manual_seed(1)
        loss = sum(network(images, None, TARGETS).values())
        results.append(torch.autograd.grad(loss, [p for p in network.parameters() if p.requires_grad]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("masks", [True, False])
def test_outputs_for_other_classes(masks):
    network = small(masks=masks).double()
    network.reset_classifier(9)
    twin = small(num_classes=9, masks=masks)
    assert network.num_classes == 9 and network.roi_heads.box_predictor.cls_score.weight.dtype == torch.float64
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (network, twin)]
    assert shapes[0] == shapes[1]
    with torch.no_grad():
        spread(network).double().eval()(torch.randn(1, 3, *SIZE))


def test_weights_without_decay_are_those_of_the_backbone():
    network = pointmix.create_detector("hcformer_nano", 3, depths=(1, 1, 1, 1), decay_bias_tables=False)
    names = network.no_weight_decay()
    assert names and names <= set(dict(network.named_parameters()))


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_keeps_boxes_and_losses_in_float32(autocast):
    network, images = spread(small()), torch.randn(2, 3, *SIZE)
    network = network if autocast else network.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        torch.manual_seed(1)
        losses = network.train()(images, None, TARGETS)
        with torch.no_grad():
            found = network.eval()(images)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    for detections in found:
        assert all(x.dtype == torch.float32 for x in (detections.boxes, detections.scores, detections.masks))
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, kwargs, message",
    [
        ("coc_tny", {}, "no model 'coc_tny'; ours are coc_"),
        ("vit_tiny_patch16_224", {}, r"gives maps of strides \[16, 16, 16.*needs strides 4, 8"),
        ("pointmlp", {}, "a detector needs a backbone of images with maps of strides 4, 8, and so on, not pointmlp"),
        ("coc_tiny", dict(coord_dims=3), "a detector needs a backbone of images"),
        ("coc_tiny", dict(num_classes=0), "num_classes must be at least 1"),
        ("coc_tiny", dict(anchor_sizes=(8, 16)), r"anchor_sizes must have a size for each of 4 maps .* got \(8, 16\)"),
        ("coc_tiny", dict(nms_iou=1.5), "nms_iou must be from 0 to 1, got 1.5"),
        ("coc_tiny", dict(init="random"), "init must be one of xavier, torchvision, got 'random'"),
        ("coc_tiny", dict(anchor_ratios=(0,)), "anchor_ratios must be above 0"),
        ("coc_tiny", dict(anchor_ratios=()), "anchor_ratios is empty, expected at least one"),
    ],
)
def test_settings_that_are_refused(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        pointmix.create_detector(name, **(dict(num_classes=2) | kwargs))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (None, "training needs the targets of 1 images, got none"),
        ([], "training needs the targets of 1 images, got 0"),
        ([target([[5, 5, 5, 9]], [0])], r"target 0 has the box \[5.0, 5.0, 5.0, 9.0\], expected finite corners"),
        ([target([[5, 5, float("nan"), 9]], [0])], r"target 0 has the box \[5.0, 5.0, nan, 9.0\]"),
        ([target([[5, 5, float("inf"), 9]], [0])], r"target 0 has the box \[5.0, 5.0, inf, 9.0\]"),
        ([target([[5, 5, 8, 9]], [0], (64, 95))], r"target 0 has masks \(1, 64, 95\), expected .* image of 64 x 96"),
        ([target([[5, 5, 8, 9]], [4])], "target 0 has label 4, expected 0 to 3"),
        ([target([[5, 5, 8, 9]], [-1])], "target 0 has label -1"),
        ([target([[5, 5, 8, 9]], [0, 1], masks=False)], r"target 0 must have boxes \(M, 4\) and labels \(M,\), got"),
        (
            [target([[5, 5, 8, 9]], [0], masks=False)],
            r"target 0 must have masks \(1, h, w\) for the mask head, got none",
        ),
    ],
)
def test_targets_that_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        small().train()(torch.randn(1, 3, *SIZE), None, wrong)


def test_inputs_that_do_not_suit_the_network():
    network = small().eval()
    with pytest.raises(ValueError, match="the input has 4 channels, the model takes 3"):
        network(torch.rand(1, 4, *SIZE))
    with pytest.raises(ValueError, match="a detector takes images or partial images, got points without a lattice"):
        network(PointSet.from_points(torch.rand(9, 2), torch.rand(9, 3)))
    images = [torch.rand(3, 32, 32), torch.rand(3, 32, 40)]
    with pytest.raises(ValueError, match=r"images on one lattice, got lattices of \[\(32, 32\), \(32, 40\)\]"):
        network(PointSet.from_images(images))
    for sizes in ([[64, 97]], [[0, 5]], [[64, 96]] * 2, [[64, 96, 3]], [64, 96]):
        with pytest.raises(ValueError, match="sizes must be 1 pairs within 64 x 96"):
            network(torch.rand(1, 3, *SIZE), torch.tensor(sizes))
