"""The region proposal network of the papers: torchvision's with other anchors, matches and loss. In float32.

Ren et al., "Faster R-CNN", NeurIPS 2015, section 3, on the maps of an FPN (Lin et al., CVPR 2017, section 4.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection import _utils as torchvision_utils
from torchvision.models.detection import anchor_utils, rpn
from torchvision.models.detection.image_list import ImageList

from pointmix.ops.conv3x3 import conv3x3_of_maps
from pointmix.ops.precision import at_least_float32
from pointmix.profile.macs import Macs, linear_macs


class AnchorGenerator(anchor_utils.AnchorGenerator):
    """Anchors of one size a map, centered at the upper left corners of its cells.

    Torchvision infers the strides of maps by dividing the size of the lattice, which gives other strides if it is not a
    multiple of the largest.

    Args:
        sizes: the square root of the anchors' area on each map, in pixels.
        ratios: height / width.
        strides: of each map.
        rounded: round the corners of the anchors of a cell to pixels.
    """

    def __init__(
        self, sizes: Sequence[float], ratios: Sequence[float], *, strides: Sequence[int], rounded: bool
    ) -> None:
        self.strides, self.rounded = tuple(strides), rounded
        super().__init__(tuple((size,) for size in sizes), (tuple(ratios),) * len(sizes))

    def generate_anchors(self, scales: object, aspect_ratios: object, *args: object, **kwargs: object) -> Tensor:
        """Anchors (A, 4) around the origin."""
        size = torch.as_tensor(scales, dtype=torch.float64)
        root = torch.as_tensor(aspect_ratios, dtype=torch.float64).sqrt()
        width, height = (1 / root[:, None] * size).flatten(), (root[:, None] * size).flatten()
        anchors = torch.stack([-width, -height, width, height], dim=1) / 2
        return anchors.round() if self.rounded else anchors

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """The anchors of all maps for each image, at least in float32."""
        like = feature_maps[0]
        cells = [anchors.to(like.device, at_least_float32(like.dtype)) for anchors in self.cell_anchors]
        found = []
        for x, stride, cell in zip(feature_maps, self.strides, cells, strict=True):
            row, column = (torch.arange(side, device=like.device) * stride for side in x.shape[-2:])
            y, z = torch.meshgrid(row, column, indexing="ij")
            corner = torch.stack([z, y, z, y], dim=-1).view(-1, 1, 4)
            found.append((corner + cell).view(-1, 4))
        return [torch.cat(found)] * len(image_list.image_sizes)


class Matcher(torchvision_utils.Matcher):
    """Torchvision's matcher, in which the best anchors of an object are matched only if they overlap it enough.

    Args:
        high, low: IoU from which anchors are matched, and below which they are background.
        lowest: IoU from which the best anchors of an object are matched although they are below `high`.
    """

    def __init__(self, high: float, low: float, *, lowest: float) -> None:
        super().__init__(high, low, allow_low_quality_matches=True)
        self.lowest = lowest

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor) -> None:
        enough = match_quality_matrix.amax(dim=1) >= self.lowest
        super().set_low_quality_matches_(matches, all_matches, match_quality_matrix[enough])


def convolved(x: Float[Tensor, "B C H W"], layers: nn.Sequential) -> Float[Tensor, "B K H W"]:
    """What torchvision's 3x3 convolutions and their activations make of maps."""
    for layer in layers:
        convolution, activation = cast(Iterable[nn.Module], layer)
        assert isinstance(convolution, nn.Conv2d)
        x = activation(conv3x3_of_maps(x, convolution.weight, convolution.bias))
    return x


class RPNHead(rpn.RPNHead):
    """Torchvision's head, with outputs at least in float32."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        dtype, features = at_least_float32(x[0].dtype), [convolved(one, self.conv) for one in x]
        return [self.cls_logits(y).to(dtype) for y in features], [self.bbox_pred(y).to(dtype) for y in features]


class RegionProposalNetwork(rpn.RegionProposalNetwork):
    """Torchvision's network with another loss of boxes.

    Args:
        box_loss_beta: of smooth L1; 0 for L1.
        fg_iou_thresh, bg_iou_thresh, low_quality_iou: `high`, `low` and `lowest` of `Matcher`.
        *args, **kwargs: of torchvision's.
    """

    def __init__(
        self,
        *args: object,
        fg_iou_thresh: float,
        bg_iou_thresh: float,
        box_loss_beta: float,
        low_quality_iou: float,
        **kwargs: object,
    ) -> None:
        super().__init__(*args, fg_iou_thresh=fg_iou_thresh, bg_iou_thresh=bg_iou_thresh, **kwargs)
        self.box_loss_beta = box_loss_beta
        self.proposal_matcher = Matcher(fg_iou_thresh, bg_iou_thresh, lowest=low_quality_iou)

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy of objects against background, and the loss of the boxes of objects; both divided by
        the number of sampled anchors."""
        positive, negative = (torch.cat(masks).nonzero().squeeze(1) for masks in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        number = max(len(sampled), 1)
        label, score = torch.cat(labels)[sampled], objectness.flatten()[sampled]
        deltas, wanted = pred_bbox_deltas[positive], torch.cat(regression_targets)[positive]
        boxes = F.smooth_l1_loss(deltas, wanted, beta=self.box_loss_beta, reduction="sum")
        objects = F.binary_cross_entropy_with_logits(score, label.to(score.dtype), reduction="sum")
        return objects / number, boxes / number

    def macs(self, cells: Sequence[int]) -> Macs:
        """Multiply-adds for maps with this many cells."""
        layers = [layer for layer in self.head.modules() if isinstance(layer, nn.Conv2d)]
        return linear_macs(sum(cells), *layers)
