"""CoC and HCFormer as their papers write them, with the weights of one of our models: maps (B, C, H, W), convolutions
of width one, heads and windows moved into the batch, and every sum of the clustering over a tensor of M x L x D.

A contender of benchmarks/image_models.py, for full images whose sides the windows divide.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointmix.nn.mixers.hierarchical import ClusterMixer
from pointmix.nn.stage import Stage
from pointmix.ops import lorentz


class LiteralBackbone(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        if self.model.coords:
            rows, columns = (torch.arange(side, device=x.device) / (side - 1) - 0.5 for side in x.shape[2:])
            plane = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(x.dtype)
            x = torch.cat([x, plane.expand(len(x), -1, -1, -1)], 1)
        for stage in self.model.stages:
            conv = stage.reducer
            x = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
            for block in stage.blocks:
                x = self.block(x, block, stage)
        return self.model.head(norm(x, self.model.norm).mean((2, 3)))

    def block(self, x: Tensor, block: nn.Module, stage: Stage) -> Tensor:
        mix = soft if isinstance(block.mixer, ClusterMixer) else hard
        x = x + block.scale1.gamma.view(-1, 1, 1) * mix(norm(x, block.norm1), block.mixer, stage)
        y = block.mlp.fc1(norm(x, block.norm2).permute(0, 2, 3, 1))
        y = block.mlp.fc2(F.gelu(y)).permute(0, 3, 1, 2)
        return x + block.scale2.gamma.view(-1, 1, 1) * y


def hard(x: Tensor, mixer: nn.Module, stage: Stage) -> Tensor:
    """Context Clusters, section 3.2."""
    q, v = (windows(t, mixer.heads, stage.windows_per_side) for t in queries_and_values(x, mixer))  # (S, D, h, w)
    center, value = pooled(q, stage.centers_per_side), pooled(v, stage.centers_per_side)  # (S, M, D)
    cosine = F.normalize(center, dim=-1) @ F.normalize(q.flatten(2), dim=1)
    s = torch.sigmoid(mixer.alpha * cosine + mixer.beta)  # (S, M, L)
    s = s * torch.zeros_like(s).scatter_(1, s.argmax(1, keepdim=True), 1.0)
    o = joined(clustered(s, v, value), len(x), stage.windows_per_side)
    return convolution(o, mixer.proj.weight, mixer.proj.bias)


def soft(x: Tensor, mixer: ClusterMixer, stage: Stage) -> Tensor:
    """HCFormer, section 3.3: points around the centers of their window, windows around the centers of the image."""
    maps, sets = queries_and_values(x, mixer), len(x)
    q, v = (windows(t, mixer.heads, stage.windows_per_side) for t in maps)  # (S, D, h, w)
    center, value = pooled(q, stage.centers_per_side), pooled(v, stage.centers_per_side)  # (S, M, D)
    near = mixer.alpha_patch * F.normalize(center, dim=-1) @ F.normalize(q.flatten(2), dim=1)  # (S, M, L)
    if mixer.bias_patch is not None:
        bias = F.interpolate(mixer.bias_patch, x.shape[2:], mode="bilinear", align_corners=True).flatten(0, 1)
        near = near + windows(bias.expand(sets, -1, -1, -1), mixer.heads, stage.windows_per_side).flatten(2)
    o = joined(clustered(near.softmax(1), v, value), sets, stage.windows_per_side)  # (B, E D, H, W)
    if mixer.alpha_window is not None:
        q, v = (windows(t, mixer.heads, 1) for t in maps)  # (B E, D, H, W)
        side = stage.plan_options["global_centers_per_side"]
        center, value = pooled(q, side), pooled(v, side)  # (B E, G, D)
        q, v = (F.adaptive_avg_pool2d(t, stage.windows_per_side) for t in (q, v))  # (B E, D, F, F)
        kappa = mixer.curvature()
        center, q = (lorentz.expmap0(lorentz.clip_norm(t), kappa) for t in (center, q.flatten(2).mT))
        near = -mixer.alpha_window * lorentz.pairwise_distance(center, q, kappa)
        if mixer.bias_window is not None:
            near = near + mixer.bias_window.flatten(2).repeat(sets, 1, 1)
        over = joined(clustered(near.softmax(1), v, value), sets, 1)  # (B, E D, F, F)
        o = torch.cat([o, F.interpolate(over, x.shape[2:], mode="nearest")], 1)
    return convolution(o, mixer.proj.weight, mixer.proj.bias)


def clustered(a: Tensor, v: Tensor, value: Tensor) -> Tensor:
    """Aggregate and dispatch of a map, each as a sum over (S, M, L, D)."""
    points = v.flatten(2).mT.unsqueeze(1)  # (S, 1, L, D)
    g = (value + (a.unsqueeze(-1) * points).sum(2)) / (1 + a.sum(2, keepdim=True))  # (S, M, D)
    return (a.unsqueeze(-1) * g.unsqueeze(2)).sum(1).mT.unflatten(2, v.shape[2:])  # (S, D, h, w)


def queries_and_values(x: Tensor, mixer: nn.Module) -> list[Tensor]:
    weights, biases = mixer.qv.weight.chunk(2), mixer.qv.bias.chunk(2)
    return [convolution(x, w, b) for w, b in zip(weights, biases, strict=True)]


def windows(x: Tensor, heads: int, per_side: int) -> Tensor:
    """(B, E D, H, W) to (B E F F, D, h, w)."""
    x = x.unflatten(1, (heads, -1)).flatten(0, 1)
    if per_side == 1:
        return x
    x = x.unflatten(3, (per_side, -1)).unflatten(2, (per_side, -1))  # (B E, D, F, h, F, w)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def joined(x: Tensor, sets: int, per_side: int) -> Tensor:
    """(B E F F, D, h, w) to (B, E D, H, W)."""
    if per_side > 1:
        x = x.unflatten(0, (-1, per_side, per_side)).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    return x.unflatten(0, (sets, -1)).flatten(1, 2)


def pooled(x: Tensor, centers: int) -> Tensor:
    """(S, D, h, w) to the means around the centers, (S, M, D)."""
    return F.adaptive_avg_pool2d(x, centers).flatten(2).mT


def norm(x: Tensor, layer: nn.Module) -> Tensor:
    return F.group_norm(x, 1, layer.weight, layer.bias, layer.eps)


def convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight[:, :, None, None], bias)
