"""A segmenter as the papers' code runs it: maps (B, C, H, W), convolutions and interpolation, logits and their
cross-entropy at the size of the image. The weights are those of one of our segmenters of the CoC family.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from image_literal import LiteralBackbone, norm
from torch import Tensor, nn

from pointmix.data.segment.sample import IGNORE


class LiteralPyramid(nn.Module):
    """Maps of all stages of a backbone, and an FPN over them."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.blocks = backbone, LiteralBackbone(backbone)

    def forward(self, x: Tensor) -> list[Tensor]:
        rows, columns = (torch.arange(side, device=x.device) / (side - 1) - 0.5 for side in x.shape[2:])
        plane = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(x.dtype)
        x, maps = torch.cat([x, plane.expand(len(x), -1, -1, -1)], 1), []
        for stage, layer in zip(self.backbone.stages, self.backbone.norm, strict=True):
            conv = stage.reducer
            x = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
            for block in stage.blocks:
                x = self.blocks.block(x, block, stage)
            maps.append(norm(x, layer))
        return maps

    def fpn(self, maps: list[Tensor], neck: nn.Module) -> list[Tensor]:
        pairs = zip(maps, neck.lateral, strict=True)
        maps = [F.conv2d(x, layer.weight[..., None, None], layer.bias) for x, layer in pairs]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=maps[i - 1].shape[2:], mode="nearest")
        return [F.conv2d(x, s.weight, s.bias, padding=1) for x, s in zip(maps, neck.smooth, strict=True)]


class LiteralSegmenter(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.pyramid = network, LiteralPyramid(network.backbone)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.pyramid.fpn(self.pyramid(x), self.network.head.fpn))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)

    def head(self, maps: list[Tensor]) -> Tensor:
        head, total = self.network.head, 0
        for i, (x, level) in enumerate(zip(maps, head.levels, strict=True)):
            for layer in level:
                x, n = F.conv2d(x, layer.conv.weight, padding=1), layer.norm
                x = F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, self.training, n.momentum, n.eps)
                x = F.relu(x, inplace=True)
                if i > 0:
                    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            total = total + x
        return F.conv2d(head.drop(total), head.classifier.weight[..., None, None], head.classifier.bias)

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Of images (B, C, H, W) with labels (B, H, W)."""
        return F.cross_entropy(self(x), labels, ignore_index=IGNORE)
