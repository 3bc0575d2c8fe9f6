"""From the maps of an FPN to the classes, boxes and masks of proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops.poolers import LevelMapper

from pointmix.ops.precision import at_least_float32
from pointmix.ops.roi_align import roi_align


class BoxPooling(TypedDict):
    """The settings that box and mask heads share, see `BoxPooler`."""

    first_level: int
    levels: int
    canonical_scale: int
    sampling_ratio: int
    aligned: bool


class BoxPooler(nn.Module):
    """Features of boxes, each from the map that suits its size (Lin et al., equation 1).

    Torchvision's `MultiScaleRoIAlign` cannot align boxes.

    Args:
        bins: along each side of a box.
        first_level, levels: the finest map has stride 2^first_level, and there are this many.
        canonical_scale: boxes of this side in pixels are read from the map of stride 16.
        sampling_ratio, aligned: see `pointmix.ops.roi_align.roi_align`.
    """

    def __init__(
        self, bins: int, *, first_level: int, levels: int, canonical_scale: int, sampling_ratio: int, aligned: bool
    ) -> None:
        super().__init__()
        self.bins, self.first_level, self.sampling_ratio, self.aligned = bins, first_level, sampling_ratio, aligned
        self.level_of = LevelMapper(first_level, first_level + levels - 1, canonical_scale)

    def forward(
        self, maps: Sequence[Float[Tensor, "B C _H _W"]], boxes: list[Float[Tensor, "_K 4"]], *unused: object
    ) -> Float[Tensor, "N C P P"]:
        """Args:
        maps: the finest first.
        boxes: of each image, in pixels.
        """
        every = torch.cat(boxes)
        image = torch.repeat_interleave(torch.tensor([len(b) for b in boxes], device=every.device))
        level = self.level_of(boxes)
        order, parts = level.argsort(stable=True), []
        places = order.split(level.bincount(minlength=len(maps)).tolist())
        for i, (x, place) in enumerate(zip(maps, places, strict=True)):
            scale, ratio = 0.5 ** (self.first_level + i), self.sampling_ratio
            on_map = every[place], image[place], self.bins
            parts.append(roi_align(x, *on_map, scale=scale, sampling_ratio=ratio, aligned=self.aligned))
        return torch.cat(parts)[order.argsort()]


class BoxPredictor(nn.Module):
    """Logits of the background and K classes, and deltas of the K classes, with zeros for the background, which
    torchvision's functions expect.

    Args:
        dim: channels of the input.
        num_classes: K.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(dim, num_classes + 1)
        self.bbox_pred = nn.Linear(dim, 4 * num_classes)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "N C"]) -> tuple[Float[Tensor, "N K1"], Float[Tensor, "N D"]]:
        logits, deltas = self.cls_score(x), F.pad(self.bbox_pred(x), (4, 0))
        dtype = at_least_float32(x.dtype)
        return logits.to(dtype), deltas.to(dtype)
