"""With torchvision's settings, detectors are torchvision's network."""

from __future__ import annotations

import inspect
import sys

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, anchor_utils, faster_rcnn, mask_rcnn
from torchvision.models.detection import roi_heads as torchvision_heads
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pointmix.models.detector import TORCHVISION
from pointmix.ops.roi_align import roi_align
from tests.models.test_detector import F64, SMALL, small, spread, target


class Maps(nn.Module):
    """A network of timm with torchvision's FPN."""

    def __init__(self, channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.body = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4))
        self.fpn = FeaturePyramidNetwork(channels, out_channels, LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.fpn({str(i): y for i, y in enumerate(self.body(x))})


def torchvision_twin(ours: nn.Module, masks: bool) -> nn.Module:
    """Torchvision's plain network with the weights of ours, and others in the rows of the background."""
    classes, dim, settings = ours.num_classes + 1, SMALL["neck_dim"], {}
    if masks:
        settings["mask_head"] = mask_rcnn.MaskRCNNHeads(dim, (8,) * 4, 1)
        settings["mask_predictor"] = mask_rcnn.MaskRCNNPredictor(8, 8, classes)
    anchors = anchor_utils.AnchorGenerator(tuple((size,) for size in SMALL["anchor_sizes"]), ((0.5, 1.0, 2.0),) * 5)
    theirs = (MaskRCNN if masks else faster_rcnn.FasterRCNN)(
        Maps([info["num_chs"] for info in ours.backbone.feature_info], dim),
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=anchors,
        box_head=faster_rcnn.TwoMLPHead(dim * 49, 32),
        box_predictor=faster_rcnn.FastRCNNPredictor(32, classes),
        box_detections_per_img=400,
        rpn_post_nms_top_n_test=200,
        min_size=64,  # of the images below: nothing is resized
        max_size=128,
        _skip_resize=True,  # in training
        **settings,
    )
    theirs.transform.postprocess = lambda result, *_: result
    loss = theirs.rpn.compute_loss  # labels of anchors are float32, and so would be the loss
    theirs.rpn.compute_loss = lambda scores, deltas, labels, *rest: loss(
        scores, deltas, [x.double() for x in labels], *rest
    )
    for pool in (theirs.roi_heads.box_roi_pool, theirs.roi_heads.mask_roi_pool):
        if pool is not None:
            pool.canonical_scale = SMALL["canonical_scale"]
    maps, neck, heads = theirs.backbone, ours.neck, ours.roi_heads
    maps.body.load_state_dict(ours.backbone.body.state_dict())
    for i in range(4):
        lateral = neck.lateral[i]
        maps.fpn.inner_blocks[i][0].load_state_dict(dict(weight=lateral.weight[..., None, None], bias=lateral.bias))
        maps.fpn.layer_blocks[i][0].load_state_dict(neck.smooth[i].state_dict())
    theirs.rpn.head.load_state_dict(ours.rpn.head.state_dict())
    known = {key: value for key, value in heads.state_dict().items()}
    own = theirs.roi_heads.state_dict()
    for key, value in known.items():
        extra = len(own[key]) - len(value)
        assert extra == (4 if "bbox_pred" in key else 1 if "mask_fcn_logits" in key else 0)
        own[key] = torch.cat([own[key][:extra], value])
    theirs.roi_heads.load_state_dict(own)
    return theirs


@pytest.fixture
def plain_roi_align(monkeypatch):
    """Torchvision's plain form without compiling it; ours for masks, where the plain form takes gigabytes."""
    module = sys.modules["torchvision.ops.roi_align"]
    monkeypatch.setattr(module, "_roi_align", inspect.unwrap(module._roi_align))

    def crop(masks, rois, size, scale):
        return roi_align(masks, rois[:, 1:], rois[:, 0].long(), size[0], scale=scale, aligned=False)

    monkeypatch.setattr(torchvision_heads, "roi_align", crop)


@pytest.mark.parametrize("masks", [True, False])
def test_with_torchvisions_settings_it_is_torchvisions_network(masks, plain_roi_align):
    ours = spread(small("resnet18", masks=masks, max_detections=400, test_proposals=200, **TORCHVISION)).double()
    theirs = torchvision_twin(ours, masks).double()
    sizes = [(64, 128), (50, 100)]  # on one lattice, of a multiple of 64: torchvision infers strides from it
    images = [torch.randn(3, *size, **F64) for size in sizes]
    lattice = torch.zeros(2, 3, 64, 128, **F64)
    for image, place in zip(images, lattice, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    targets = [
        target([[5, 5, 60, 50], [70, 10, 120, 60], [3, 50, 12, 62]], [1, 3, 0], sizes[0], masks),
        target([[20, 5, 44, 48]], [2], sizes[1], masks),
    ]
    labeled = [{k: v for k, v in dict(t._asdict(), labels=t.labels + 1).items() if v is not None} for t in targets]
    for each in labeled:
        each["boxes"] = each["boxes"].double()
    torch.manual_seed(1)
    expected = theirs(images, labeled)
    torch.manual_seed(1)
    found = ours(lattice, torch.tensor(sizes), targets)
    assert found.keys() == expected.keys() and len(found) == 4 + masks
    for key, loss in found.items():
        assert loss > 0
        torch.testing.assert_close(loss, expected[key], rtol=1e-9, atol=1e-9)
    images = torch.randn(2, 3, 64, 128, **F64)
    with torch.no_grad():
        found, expected = ours.eval()(images), theirs.eval()(list(images))
    for one, other in zip(found, expected, strict=True):
        assert len(one.boxes) > 50 and one.labels.unique().numel() > 1
        assert torch.equal(one.labels + 1, other["labels"])
        torch.testing.assert_close(one.boxes, other["boxes"], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(one.scores, other["scores"], rtol=1e-9, atol=1e-9)
        if masks:
            torch.testing.assert_close(one.masks, other["masks"][:, 0], rtol=1e-9, atol=1e-9)
