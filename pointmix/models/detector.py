"""Detectors: any backbone with an FPN and the heads of Mask R-CNN, for images and partial images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from pointmix.layouts.cloud import Cloud
from pointmix.layouts.grid import Grid
from pointmix.models.pyramid import DenseModel, Pyramid, create_pyramid
from pointmix.nn.heads.detect.boxes import BoxPooler, BoxPooling, BoxPredictor
from pointmix.nn.heads.detect.roi_heads import RoIHeads
from pointmix.nn.heads.detect.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead
from pointmix.nn.heads.detect.targets import BACKGROUND, BoxTarget, as_dicts
from pointmix.nn.heads.fpn import FPN
from pointmix.ops.precision import at_least_float32
from pointmix.pointset import PointSet
from pointmix.profile.macs import Part, parameters
from pointmix.utils.ranges import COUNT, FRACTION, NATURAL, NONNEGATIVE, POSITIVE, check_choice

TORCHVISION: dict[str, object] = dict(
    box_loss_beta=1 / 9,
    roi_aligned=False,
    roi_sampling_ratio=2,
    train_proposals=2000,
    low_quality_iou=0.0,
    round_anchors=True,
    binary_masks=False,
    init="torchvision",
)  # settings of `create_detector` with which it is torchvision's Mask R-CNN


class Detections(NamedTuple):
    """The D objects that were found in an image.

    Args:
        boxes: (D, 4) corners x1, y1, x2, y2, in pixels of the lattice, within the image.
        labels: (D,) int64 classes from 0.
        scores: (D,) descending.
        masks: (D, M, M) probability of the object in each of M x M bins of its box; None without a mask head.
    """

    boxes: Float[Tensor, "D 4"]
    labels: Int[Tensor, "D"]
    scores: Float[Tensor, "D"]
    masks: Float[Tensor, "D M M"] | None


class Detector(DenseModel):
    """Boxes, classes and masks of the objects in images.

    Args:
        backbone: gives the points of its stages; its input is a `PointSet`.
        neck: maps of all stages. One more, every second row and column of the coarsest, is for proposals only.
        rpn: proposals of these maps.
        roi_heads: objects of the proposals.
        num_classes: K.
        in_chans: feature channels of the input.
        coord_dims: coordinates of a position; None for any.
        coord_mode: coordinates of the pixels of an image batch, see `PointSet.from_image`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: FPN,
        rpn: RegionProposalNetwork,
        roi_heads: RoIHeads,
        *,
        num_classes: int,
        in_chans: int,
        coord_dims: int | None = 2,
        coord_mode: str = "inclusive",
    ) -> None:
        super().__init__(backbone, in_chans=in_chans, coord_dims=coord_dims, coord_mode=coord_mode)
        self.neck, self.rpn, self.roi_heads = neck, rpn, roi_heads
        self.num_classes = num_classes

    @property
    def has_masks(self) -> bool:
        return bool(self.roi_heads.has_mask())

    def as_points(self, x: Tensor | PointSet) -> PointSet:
        """The input as points in the precision of the weights.

        Raises:
            ValueError: if it has other channels than the network takes, or is not images on one lattice.
        """
        points = super().as_points(x)
        if isinstance(points.layout, Cloud):
            raise ValueError("a detector takes images or partial images, got points without a lattice")
        return points

    def forward(
        self,
        x: Tensor | PointSet,
        sizes: Int[Tensor, "B 2"] | None = None,
        targets: Sequence[BoxTarget] | None = None,
    ) -> dict[str, Tensor] | list[Detections]:
        """Losses in training mode (loss_objectness, loss_rpn_box_reg, loss_classifier, loss_box_reg, and loss_mask with
        a mask head), the objects of each image in evaluation mode.

        Args:
            x: images (B, C, H, W), or a PointSet of images or partial images on one lattice.
            sizes: rows and columns of each image, which is at the upper left of the lattice; None for all of it.
            targets: the objects of each image, in training mode.

        Raises:
            ValueError: if the input or a target does not suit the network, or targets are missing.
        """
        points = self.as_points(x)
        shapes = self._shapes(points, sizes)
        if self.training and (targets is None or len(targets) != len(shapes)):
            given = "none" if targets is None else len(targets)
            raise ValueError(f"training needs the targets of {len(shapes)} images, got {given}")
        maps = self.maps(points)
        known = None
        if self.training:
            dtype = at_least_float32(maps[0].dtype)
            assert targets is not None
            known = as_dicts(targets, shapes, num_classes=self.num_classes, masks=self.has_masks, dtype=dtype)
        named = {str(i): x for i, x in enumerate([*maps, F.max_pool2d(maps[-1], 1, 2)])}
        proposals, losses = self.rpn(ImageList(maps[0], shapes), named, known)
        found, more = self.roi_heads(maps, proposals, shapes, known)
        if self.training:
            return {**losses, **more}
        return [Detections(f["boxes"], f["labels"] - BACKGROUND, f["scores"], f.get("masks")) for f in found]

    def maps(self, points: PointSet) -> list[Float[Tensor, "B C _H _W"]]:
        """The maps of the FPN, the finest first; absent cells are zero.

        Args:
            points: in the precision of the network.
        """
        stages = cast(Pyramid, self.backbone).forward_intermediates(points, norm=True, intermediates_only=True)
        rows = self.neck(stages, self.neck.neighborhoods(stages))
        return [cast(Tensor, stage.with_feat(x).to_image()) for stage, x in zip(stages, rows, strict=True)]

    def _shapes(self, points: PointSet, sizes: Int[Tensor, "B 2"] | None) -> list[tuple[int, int]]:
        """Rows and columns of each image."""
        layout = points.layout
        assert not isinstance(layout, Cloud)
        lattices = {layout.size} if isinstance(layout, Grid) else set(map(tuple, layout.size.tolist()))
        if len(lattices) != 1:
            raise ValueError(f"a detector takes images on one lattice, got lattices of {sorted(lattices)}")
        height, width = lattices.pop()
        if sizes is None:
            return [(height, width)] * points.num_sets
        shapes = [tuple(size) for size in sizes.tolist()] if sizes.shape == (points.num_sets, 2) else []
        if not shapes or not all(0 < h <= height and 0 < w <= width for h, w in shapes):
            raise ValueError(f"sizes must be {points.num_sets} pairs within {height} x {width}, got {sizes.tolist()}")
        return shapes

    def reset_classifier(self, num_classes: int) -> None:
        """New outputs for other classes."""
        COUNT.check(num_classes=num_classes)
        self.num_classes, heads = num_classes, self.roi_heads
        like = heads.box_predictor.cls_score.weight
        heads.box_predictor = BoxPredictor(like.shape[1], num_classes).to(like.device, like.dtype)
        if self.has_masks:
            last = nn.Conv2d(heads.mask_predictor.mask_fcn_logits.in_channels, num_classes, 1)
            nn.init.kaiming_normal_(last.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, last.bias))
            heads.mask_predictor.mask_fcn_logits = last.to(like.device, like.dtype)

    @torch.no_grad()
    def parts(self, points: PointSet) -> Iterator[Part]:
        """Parameters and multiply-adds of the backbone's stages and the heads for one set; only reducers run.

        As many boxes and masks are counted as are kept at most, 1000 and 100 in the papers; the bilinear samples of
        boxes are not.
        """
        backbone = cast(Pyramid, self.backbone)
        found = list(backbone.parts(backbone.as_points(points)))
        yield from found
        sizes = [part.size.points for part in found if part.size is not None]
        yield Part("FPN", self.neck.neck_dim, parameters(self.neck), self.neck.macs(sizes))
        height, width = self._shapes(points, None)[0]
        cells = [-(-height // stride) * -(-width // stride) for stride in self.rpn.anchor_generator.strides]
        heads = self.roi_heads
        yield Part("RPN", self.neck.neck_dim, parameters(self.rpn), self.rpn.macs(cells))
        box = parameters(heads.box_head, heads.box_predictor)
        yield Part(
            "box head", heads.box_head.fc7.out_features, box, heads.box_macs(self.rpn._post_nms_top_n["testing"])
        )
        if self.has_masks:
            mask = parameters(heads.mask_head, heads.mask_predictor)
            channels = heads.mask_predictor.conv5_mask.out_channels
            yield Part("mask head", channels, mask, heads.mask_macs(heads.detections_per_img))


def create_detector(
    name: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    masks: bool = True,
    neck_dim: int = 256,
    box_dim: int = 1024,
    mask_dim: int = 256,
    anchor_sizes: Sequence[float] = (32, 64, 128, 256, 512),
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    round_anchors: bool = False,
    low_quality_iou: float = 0.3,
    anchor_samples: int = 256,
    train_candidates: int = 2000,
    test_candidates: int = 1000,
    train_proposals: int = 1000,
    test_proposals: int = 1000,
    proposal_nms_iou: float = 0.7,
    box_samples: int = 512,
    box_loss_beta: float = 0.0,
    roi_aligned: bool = True,
    roi_sampling_ratio: int = 0,
    canonical_scale: int = 224,
    binary_masks: bool = True,
    score_threshold: float = 0.05,
    nms_iou: float = 0.5,
    max_detections: int = 100,
    init: str = "xavier",
    **kwargs: object,
) -> Detector:
    """A backbone with an FPN and the heads of Mask R-CNN, with the papers' settings, which are mmdetection's.

    `create_detector("coc_tiny", 80)` takes images and partial images. A backbone of timm takes whole images. With
    `**TORCHVISION`, settings and initialization are torchvision's, except that the outputs for the background's box and
    mask are left out and that an anchor's stride is that of its map, see `AnchorGenerator`. Either way, anchors in the
    padding of an image are trained on as background, and the first of the K + 1 classes inside is the background.

    Args:
        name: one of our models or of timm's.
        num_classes: K.
        in_chans: channels of the input, besides coordinates.
        masks: add the mask head.
        neck_dim, box_dim, mask_dim: channels of the FPN and the RPN, of the box head, and of the mask head.
        anchor_sizes: square root of the anchors' area in pixels, for each map of the FPN and one more that is coarser.
            For images of 64 to 256 pixels, try (8, 16, 32, 64, 128) with a canonical_scale of 56.
        anchor_ratios: height / width of the anchors.
        round_anchors: round the corners of anchors to pixels (torchvision: true).
        low_quality_iou: IoU from which an object's best anchors are trained as objects, although others are better
            (torchvision: 0).
        anchor_samples, box_samples: anchors and proposals of each image that the losses are taken of.
        train_candidates, test_candidates: best anchors of each map from which proposals are chosen.
        train_proposals, test_proposals: proposals that are kept in each image (torchvision: 2000 and 1000).
        proposal_nms_iou: proposals of one map that overlap a better one by more are dropped.
        box_loss_beta: beta of the smooth L1 loss of boxes, 0 for L1 (torchvision: 1/9).
        roi_aligned, roi_sampling_ratio: see `pointmix.ops.roi_align.roi_align` (torchvision: false, 2).
        canonical_scale: boxes of this side in pixels are read from the map of stride 16.
        binary_masks: see `RoIHeads` (torchvision: false).
        score_threshold: detections with lower scores are dropped.
        nms_iou: detections of one class that overlap a better one by more are dropped.
        max_detections: in each image.
        init: "xavier" for the FPN and the box head, and no biases, as the papers; "torchvision" for its initialization.
        **kwargs: arguments of the backbone, such as `centers_per_side`.

    Raises:
        ValueError: there is no such model, a setting is out of range, or its maps are not of strides 4, 8, and so on.
        TypeError: the backbone does not take one of the arguments.
    """
    COUNT.check(num_classes=num_classes, neck_dim=neck_dim, box_dim=box_dim, mask_dim=mask_dim)
    COUNT.check(anchor_samples=anchor_samples, box_samples=box_samples, max_detections=max_detections)
    COUNT.check(train_candidates=train_candidates, test_candidates=test_candidates)
    COUNT.check(train_proposals=train_proposals, test_proposals=test_proposals)
    POSITIVE.check(anchor_sizes=anchor_sizes, anchor_ratios=anchor_ratios, canonical_scale=canonical_scale)
    FRACTION.check(low_quality_iou=low_quality_iou, score_threshold=score_threshold)
    FRACTION.check(proposal_nms_iou=proposal_nms_iou, nms_iou=nms_iou)
    NONNEGATIVE.check(box_loss_beta=box_loss_beta)
    NATURAL.check(roi_sampling_ratio=roi_sampling_ratio)
    check_choice(known=("xavier", "torchvision"), init=init)
    if not anchor_ratios:
        raise ValueError("anchor_ratios is empty, expected at least one")
    backbone, coord_dims, coord_mode = create_pyramid(name, in_chans=in_chans, **kwargs)
    info = cast(Pyramid, backbone).feature_info
    strides = [stage["reduction"] for stage in info]
    if coord_dims not in (None, 2) or any(b != 2 * a for a, b in zip(strides, strides[1:], strict=False)):
        raise ValueError(f"a detector needs a backbone of images with maps of strides 4, 8, and so on, not {name}")
    if len(anchor_sizes) != len(strides) + 1:
        expected = f"{len(strides)} maps of the FPN and one more"
        raise ValueError(f"anchor_sizes must have a size for each of {expected}, got {tuple(anchor_sizes)}")
    neck = FPN([stage["num_chs"] for stage in info], neck_dim, absent=str(kwargs.get("absent", "zero")))
    rpn = RegionProposalNetwork(
        AnchorGenerator(anchor_sizes, anchor_ratios, strides=[*strides, 2 * strides[-1]], rounded=round_anchors),
        RPNHead(neck_dim, len(anchor_ratios)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=anchor_samples,
        positive_fraction=0.5,
        pre_nms_top_n=dict(training=train_candidates, testing=test_candidates),
        post_nms_top_n=dict(training=train_proposals, testing=test_proposals),
        nms_thresh=proposal_nms_iou,
        box_loss_beta=box_loss_beta,
        low_quality_iou=low_quality_iou,
    )
    pooling = BoxPooling(
        first_level=strides[0].bit_length() - 1,
        levels=len(strides),
        canonical_scale=canonical_scale,
        sampling_ratio=roi_sampling_ratio,
        aligned=roi_aligned,
    )
    roi_heads = RoIHeads(
        BoxPooler(7, **pooling),
        TwoMLPHead(neck_dim * 7**2, box_dim),
        BoxPredictor(box_dim, num_classes),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=box_samples,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=score_threshold,
        nms_thresh=nms_iou,
        detections_per_img=max_detections,
        box_loss_beta=box_loss_beta,
        binary_masks=binary_masks,
        **_mask_parts(neck_dim, mask_dim, num_classes, pooling) if masks else {},
    )
    (_xavier_init if init == "xavier" else _torchvision_init)(neck, roi_heads)
    return Detector(
        backbone,
        neck,
        rpn,
        roi_heads,
        num_classes=num_classes,
        in_chans=in_chans,
        coord_dims=coord_dims,
        coord_mode=coord_mode,
    )


def _mask_parts(neck_dim: int, mask_dim: int, num_classes: int, pooling: BoxPooling) -> dict[str, nn.Module]:
    return dict(
        mask_roi_pool=BoxPooler(14, **pooling),
        mask_head=MaskRCNNHeads(neck_dim, (mask_dim,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(mask_dim, mask_dim, num_classes),
    )


def _xavier_init(neck: FPN, heads: RoIHeads) -> None:
    """Xavier for the box head, as the FPN is made; no biases."""
    for layer in (heads.box_head.fc6, heads.box_head.fc7):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    if heads.has_mask():
        for layer in (heads.mask_predictor.conv5_mask, heads.mask_predictor.mask_fcn_logits):
            nn.init.zeros_(layer.bias)


def _torchvision_init(neck: FPN, heads: RoIHeads) -> None:
    """FPN: uniform by the inputs of a layer; box head and outputs: the defaults of their layers."""
    for layer in [*neck.lateral, *neck.smooth]:
        nn.init.kaiming_uniform_(cast(Tensor, layer.weight), a=1)
    for layer in (heads.box_predictor.cls_score, heads.box_predictor.bbox_pred):
        layer.reset_parameters()
