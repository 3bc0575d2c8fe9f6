"""A network of a few lines in place of a segmenter."""

from __future__ import annotations

import torch
from torch import nn

from pointmix import PointSet
from pointmix.ops.segments import segment_mean


class Upsample:
    """The lift of the stand-in: every value is kept."""

    def __init__(self, points: slice) -> None:
        self.points = points

    def __call__(self, feat):
        return feat[self.points]

    def split(self, rows):
        ends = range(self.points.start, self.points.stop, rows)
        parts = [slice(start, min(start + rows, self.points.stop)) for start in ends]
        return [(part, Upsample(part)) for part in parts]


class StandIn(nn.Module):
    """Logits that are a linear map of features and positions, plus `context` times the mean features of the set.

    Args:
        rows: parts have this many points, whatever is asked for.
        categories: logits 0 are raised by the category of the set.
    """

    def __init__(self, in_chans=3, num_classes=4, *, dims=2, context=0.0, place=0.0, rows=None, categories=0):
        super().__init__()
        self.in_chans, self.num_classes, self.coord_dims = in_chans, num_classes, dims
        self.context, self.place, self.rows, self.categories = context, place, rows, categories
        generator = torch.Generator().manual_seed(7)
        self.weight = nn.Parameter(torch.randn(num_classes, in_chans, generator=generator))
        self.where = nn.Parameter(torch.randn(num_classes, dims, generator=generator))
        self.calls = []  # the points of each call

    def forward(self, x, category=None, lift=True):
        points = x if isinstance(x, PointSet) else PointSet.from_batch(x)
        self.calls.append(points)
        mean = segment_mean(points.feat, points.batch, points.num_sets)[points.batch]
        feat = points.feat + self.context * mean
        logits = feat @ self.weight.T + self.place * points.pos.to(feat.dtype) @ self.where.T
        if self.categories:
            logits[:, 0] += category[points.batch]
        if not lift:
            full = Upsample(slice(0, len(logits)))
            if self.rows is not None:
                full.split = lambda rows: Upsample.split(full, self.rows)
            return points.with_feat(logits), full
        return points.with_feat(logits).to_image() if isinstance(x, torch.Tensor) else logits
