"""A segmenter as the papers' code runs it: maps (B, C, H, W), convolutions and interpolation, logits and their
cross-entropy at the size of the image. The weights are those of one of our segmenters of the CoC family.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from image_literal import LiteralBackbone, norm
from torch import Tensor, nn

from pointmix.data.segment.sample import IGNORE


class LiteralSegmenter(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.blocks = network, LiteralBackbone(network.backbone)

    def forward(self, x: Tensor) -> Tensor:
        backbone, size = self.network.backbone, x.shape[2:]
        rows, columns = (torch.arange(side, device=x.device) / (side - 1) - 0.5 for side in size)
        plane = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(x.dtype)
        x, maps = torch.cat([x, plane.expand(len(x), -1, -1, -1)], 1), []
        for stage, layer in zip(backbone.stages, backbone.norm, strict=True):
            conv = stage.reducer
            x = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
            for block in stage.blocks:
                x = self.blocks.block(x, block, stage)
            maps.append(norm(x, layer))
        return F.interpolate(self.head(maps), size=size, mode="bilinear", align_corners=False)

    def head(self, maps: list[Tensor]) -> Tensor:
        head = self.network.head
        pairs = zip(maps, head.fpn.lateral, strict=True)
        maps = [F.conv2d(x, layer.weight[..., None, None], layer.bias) for x, layer in pairs]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=maps[i - 1].shape[2:], mode="nearest")
        maps = [F.conv2d(x, s.weight, s.bias, padding=1) for x, s in zip(maps, head.fpn.smooth, strict=True)]
        total = 0
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
