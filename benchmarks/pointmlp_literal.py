"""PointMLP and PointMLP-CoC as their papers write them, with the weights of one of our models: every group written out,
then convolutions of width one over (groups, channels, neighbors), batch normalization a layer of its own.

A contender of benchmarks/points_models.py, for clouds of one size. Sampling and neighbors are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointmix.nn.grouper import Groups
from pointmix.nn.mixers.group import GroupCluster
from pointmix.nn.residual import LinearNorm, Residual


class LiteralPointMLP(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        points, sets = self.model.as_points(x), len(x)
        y = points.feat.unflatten(0, (sets, -1)).transpose(1, 2)  # (B, C, N)
        y = F.relu(convolution(self.model.stem, y), inplace=True)
        for stage in self.model.stages:
            groups = Groups.of(points, stage.neighbors)
            feat = y.transpose(1, 2).flatten(0, 1)  # (B N, C)
            anchor = feat[groups.anchor].unflatten(0, (sets, -1)).unsqueeze(2)  # (B, S, 1, C)
            moved = feat[groups.neighbors].unflatten(0, (sets, -1)) - anchor  # (B, S, k, C)
            moved = moved / (moved.flatten(1).std(1).view(-1, 1, 1, 1) + 1e-5) * stage.alpha + stage.beta
            y = torch.cat([moved, anchor.expand_as(moved)], -1).permute(0, 1, 3, 2).flatten(0, 1)  # (B S, 2C, k)
            y = F.relu(convolution(stage.transfer, y), inplace=True)
            for layer in stage.pre:
                y = clustered(layer, y) if isinstance(layer, GroupCluster) else residual(layer, y)
            y = F.adaptive_max_pool1d(y, 1).view(sets, -1, y.shape[1]).transpose(1, 2)  # (B, C, S)
            for layer in stage.pos:
                y = residual(layer, y)
            points = groups.as_points(points, y.transpose(1, 2).flatten(0, 1))
        y = F.adaptive_max_pool1d(y, 1).squeeze(-1)
        for layer in self.model.mlp:
            y = self.model.head_drop(F.relu(layer(y), inplace=True))
        return self.model.head(y)


def convolution(layer: LinearNorm, x: Tensor) -> Tensor:
    return layer.norm(F.conv1d(x, layer.linear.weight.unsqueeze(-1), layer.linear.bias))


def residual(layer: Residual, x: Tensor) -> Tensor:
    y = F.relu(convolution(layer.layer1, x), inplace=True)
    return F.relu(convolution(layer.layer2, y) + x, inplace=True)


def clustered(layer: GroupCluster, x: Tensor) -> Tensor:
    y = x.transpose(1, 2)  # (B S, k, C)
    q, v = layer.query(y), layer.value(y)
    center, value = q.mean(1, keepdim=True), v.mean(1, keepdim=True)
    cos = F.normalize(center, dim=-1) @ F.normalize(q, dim=-1).transpose(1, 2)  # (B S, 1, k)
    s = torch.sigmoid(layer.alpha * cos + layer.beta)
    g = (value + (v.unsqueeze(1) * s.unsqueeze(-1)).sum(2)) / (1 + s.sum(2, keepdim=True))  # over (B S, 1, k, D)
    out = (g.unsqueeze(2) * s.unsqueeze(-1)).sum(1)  # (B S, k, D)
    return x + layer.proj(out).transpose(1, 2)
