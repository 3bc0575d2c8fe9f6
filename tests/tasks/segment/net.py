"""A segmenter of a few lines: each point's logits are a map of its features, at a fourth of the points before the
lift."""

from __future__ import annotations

import torch
from torch import nn

from pointmix.pointset import PointSet


class Repeat:
    """Gives point i the features of coarse point i // 4; `rows` may cut it into parts."""

    def __init__(self, start, stop):
        self.start, self.stop = start, stop

    @property
    def num_points(self):
        return self.stop - self.start

    def __call__(self, feat):
        return feat[torch.arange(self.start, self.stop) // 4]

    def split(self, rows):
        starts = range(self.start, self.stop, rows)
        ends = [min(start + rows, self.stop) for start in starts]
        return [(slice(a, b), Repeat(a, b)) for a, b in zip(starts, ends, strict=True)]


class Net(nn.Module):
    def __init__(self, in_chans=3, num_classes=3, coord_dims=2, categories=0, width=8):
        super().__init__()
        self.in_chans, self.num_classes, self.coord_dims = in_chans, num_classes, coord_dims
        self.backbone = nn.Linear(in_chans + coord_dims, width)
        self.category = nn.Embedding(categories, width) if categories else None
        self.head = nn.Linear(width, num_classes)

    def forward(self, x, category=None, lift=True):
        points = x if isinstance(x, PointSet) else PointSet.from_batch(x)
        feat = torch.cat([points.feat, points.pos.to(points.feat.dtype)], 1)
        if lift:
            hidden, batch = self.backbone(feat), points.batch
        else:
            hidden, batch = self.backbone(feat[::4]), points.batch[::4]
        if self.category is not None:
            hidden = hidden + self.category(category)[batch]
        out = self.head(hidden.relu())
        if lift:
            return points.with_feat(out).to_image() if isinstance(x, torch.Tensor) else out
        first = points.ptr // 4
        return PointSet(points.pos[::4], out, first), Repeat(0, len(points.feat))
