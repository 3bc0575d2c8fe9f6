"""The second stage of Mask R-CNN: torchvision's, with the papers' losses and without rows of the background.

He et al., "Mask R-CNN", ICCV 2017, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import roi_heads

from pointmix.nn.heads.detect.rpn import convolved
from pointmix.nn.heads.detect.targets import BACKGROUND
from pointmix.ops.precision import at_least_float32
from pointmix.ops.roi_align import crop_masks
from pointmix.profile.macs import Macs, linear_macs


class RoIHeads(roi_heads.RoIHeads):
    """Boxes and masks of proposals.

    Args:
        box_loss_beta: of smooth L1; 0 for L1.
        binary_masks: train masks on aligned crops that are 0 or 1, as mmdetection does; false: on crops without
            alignment that hold the fraction of the object, as torchvision does.
        *args, **kwargs: of torchvision's.
    """

    def __init__(self, *args: object, box_loss_beta: float, binary_masks: bool, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.box_loss_beta, self.binary_masks = box_loss_beta, binary_masks

    def forward(
        self,
        features: Sequence[Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections in evaluation mode, losses in training mode.

        Args:
            features: maps of the FPN.
            proposals: boxes of each image.
            image_shapes: rows and columns of each image.
            targets: of each image, see `as_dicts`.
        """
        if not self.training:
            return self.detect(features, proposals, image_shapes), {}
        assert targets is not None
        proposals, matched, labels, wanted = self.select_training_samples(proposals, targets)
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals)))
        losses = self.box_losses(logits, deltas, torch.cat(labels), torch.cat(wanted))
        if self.has_mask():
            objects = [label > 0 for label in labels]
            boxes, matched, labels = (
                [x[i] for x, i in zip(every, objects, strict=True)] for every in (proposals, matched, labels)
            )
            masks = [target["masks"] for target in targets]
            losses["loss_mask"] = self.mask_loss(self.masks(features, boxes), masks, boxes, matched, torch.cat(labels))
        return [], losses

    def detect(
        self, features: Sequence[Tensor], proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Boxes, labels (the background is 0), scores and masks (D, M, M) of each image."""
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals)))
        found = self.postprocess_detections(logits, deltas, proposals, image_shapes)
        result = [dict(zip(("boxes", "scores", "labels"), one, strict=True)) for one in zip(*found, strict=True)]
        if self.has_mask():
            logits, labels = self.masks(features, found[0]), [label - BACKGROUND for label in found[2]]
            for masks, detected in zip(roi_heads.maskrcnn_inference(logits, labels), result, strict=True):
                detected["masks"] = masks[:, 0]
        return result

    def masks(self, features: Sequence[Tensor], boxes: list[Tensor]) -> Tensor:
        """Logits (N, K, M, M) of the masks of boxes, at least in float32."""
        logits: Tensor = self.mask_predictor(convolved(self.mask_roi_pool(features, boxes), self.mask_head))
        return logits.to(at_least_float32(logits.dtype))

    def box_losses(self, logits: Tensor, deltas: Tensor, labels: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of classes, and the loss of the boxes of objects; both divided by the number of samples."""
        number, objects = max(len(labels), 1), labels.nonzero().squeeze(1)
        found = deltas.unflatten(1, (-1, 4))[objects, labels[objects]]
        boxes = F.smooth_l1_loss(found, wanted[objects], beta=self.box_loss_beta, reduction="sum")
        classes = F.cross_entropy(logits, labels, reduction="sum")
        return dict(loss_classifier=classes / number, loss_box_reg=boxes / number)

    def mask_loss(
        self, logits: Tensor, masks: list[Tensor], boxes: list[Tensor], matched: list[Tensor], labels: Tensor
    ) -> Tensor:
        """Binary cross-entropy of the mask of each object's class."""
        if not len(labels):
            return logits.sum() * 0
        crops = [
            crop_masks(mask, box, index, logits.shape[-1], aligned=self.binary_masks)
            for mask, box, index in zip(masks, boxes, matched, strict=True)
        ]
        wanted = torch.cat(crops)
        wanted = (wanted >= 0.5).to(wanted.dtype) if self.binary_masks else wanted
        chosen = logits[torch.arange(len(labels), device=labels.device), labels - BACKGROUND]
        return F.binary_cross_entropy_with_logits(chosen, wanted.to(chosen.dtype))

    def box_macs(self, boxes: int) -> Macs:
        """Multiply-adds of the classes and deltas of this many boxes."""
        head, predictor = self.box_head, self.box_predictor
        return linear_macs(boxes, head.fc6, head.fc7, predictor.cls_score, predictor.bbox_pred)

    def mask_macs(self, boxes: int) -> Macs:
        """Multiply-adds of the masks of this many boxes."""
        convolutions = [layer for layer in self.mask_head.modules() if isinstance(layer, nn.Conv2d)]
        cells, up = boxes * self.mask_roi_pool.bins**2, self.mask_predictor.conv5_mask
        return linear_macs(cells, *convolutions, up) + linear_macs(4 * cells, self.mask_predictor.mask_fcn_logits)
