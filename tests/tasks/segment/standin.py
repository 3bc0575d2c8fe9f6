"""A network of a few lines in place of a segmenter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pointmix import PointSet
from pointmix.ops.segments import segment_mean


@dataclass(frozen=True)
class Repeat:
    """The lift of the stand-in: fine point i has the features of coarse point i // every."""

    start: int
    stop: int
    every: int = 1
    rows: int | None = None

    @property
    def num_points(self):
        return self.stop - self.start

    def __call__(self, feat):
        return feat[torch.arange(self.start, self.stop) // self.every]

    def split(self, rows):
        rows = self.rows or rows
        starts = range(self.start, self.stop, rows)
        ends = [min(start + rows, self.stop) for start in starts]
        return [(slice(a, b), Repeat(a, b, self.every)) for a, b in zip(starts, ends, strict=True)]


class StandIn(nn.Module):
    """Logits that are a linear map of features and positions, plus `context` times the mean features of the set.

    Args:
        rows: parts of the lift have this many points, whatever is asked for.
        categories: logits 0 are raised by the category of the set.
        every: one in so many points is coarse; sets hold a multiple of this many.
    """

    def __init__(self, in_chans=3, num_classes=4, *, dims=2, context=0.0, place=0.0, rows=None, categories=0, every=1):
        super().__init__()
        self.in_chans, self.num_classes, self.coord_dims = in_chans, num_classes, dims
        self.context, self.place, self.rows, self.categories, self.every = context, place, rows, categories, every
        generator = torch.Generator().manual_seed(7)
        self.weight = nn.Parameter(torch.randn(num_classes, in_chans, generator=generator))
        self.where = nn.Parameter(torch.randn(num_classes, dims, generator=generator))
        self.calls = []  # the points of each call

    def forward(self, x, category=None, lift=True):
        points = x if isinstance(x, PointSet) else PointSet.from_batch(x)
        self.calls.append(points)
        up = Repeat(0, len(points.feat), self.every, self.rows)
        chosen = slice(None, None, self.every)
        pos, feat, batch = points.pos[chosen], points.feat[chosen], points.batch[chosen]
        feat = feat + self.context * segment_mean(feat, batch, points.num_sets)[batch]
        logits = feat @ self.weight.T + self.place * pos.to(feat.dtype) @ self.where.T
        if self.categories:
            logits[:, 0] += category[batch]
        if not lift:
            return PointSet(pos, logits, points.ptr // self.every), up
        logits = up(logits)
        return points.with_feat(logits).to_image() if isinstance(x, torch.Tensor) else logits
