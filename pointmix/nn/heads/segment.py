"""Semantic FPN: logits at every point of the finest stage from the outputs of all stages.

Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, figure 3, with the layers that Context Clusters, FEC
and HCFormer used (mmsegmentation's FPN and FPNHead).

    stage i   x_i ── 1x1 ──(+)── 3x3 ── [3x3, norm, ReLU, lift] x i ──(+)── dropout ── 1x1 ── logits
                            │ nearest lift                             │ sum over stages
    stage i+1 x_i+1 ─ 1x1 ──(+)── ...                                  │

On full grids the 3x3 maps are convolutions and the lifts bilinear interpolation; on sparse grids and clouds the same
weights act on neighboring points.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.layouts.lift import Lift
from pointmix.layouts.neighborhood import Neighborhood
from pointmix.nn.heads.classify import pooled
from pointmix.nn.heads.fpn import FPN
from pointmix.nn.norm import SetIndex
from pointmix.nn.reducer import Reducer
from pointmix.pointset import PointSet
from pointmix.profile.macs import BATCH_NORM, Macs, linear_macs
from pointmix.utils.ranges import COUNT, FRACTION_BELOW_1, NATURAL

CATEGORY_DIM = 64  # channels of the embedding of a category, as in PointMLP


class PointBatchNorm(nn.BatchNorm2d):
    """Batch normalization over the points of all sets of a batch. A single point, which has no variance, is normalized
    by the running statistics in training, too."""

    def forward(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        if x.shape[0] == 1 and self.running_mean is not None:  # len would be a constant of an exported graph
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x[:, :, None, None])[:, :, 0, 0]  # torch's gradients of maps (1, C, N, 1) are wrong


class ConvNormAct(nn.Module):
    """3x3 without bias, batch normalization, ReLU."""

    def __init__(self, dim_in: int, dim_out: int, *, absent: str) -> None:
        super().__init__()
        self.conv = Reducer(dim_in, dim_out, kernel=3, stride=1, padding=1, absent=absent, bias=False)
        self.norm = PointBatchNorm(dim_out)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, feat: Float[Tensor, "N C"], near: Neighborhood) -> Float[Tensor, "N K"]:
        return self.norm(self.conv.map_features(feat, near)).relu_()

    def macs(self, points: int) -> Macs:
        """Multiply-adds for one set."""
        return linear_macs(points, self.conv) + Macs(other=BATCH_NORM * points * self.conv.out_channels)


class SemanticFPN(nn.Module):
    """Semantic FPN over stages, each of which is half as fine as the one before.

    Args:
        dims: channels of each stage.
        num_classes: K.
        neck_dim: channels of the pyramid.
        decoder_dim: channels after it.
        drop_rate: dropout before the classifier.
        absent: what the 3x3 maps read where a partial image has no point, see `Reducer`.
        categories: number of categories of objects, whose parts are labeled; 0 for none.
        global_context: give every point the mean and the maximum of its set's coarsest features.
    """

    def __init__(
        self,
        dims: Sequence[int],
        num_classes: int,
        *,
        neck_dim: int = 256,
        decoder_dim: int = 128,
        drop_rate: float = 0.1,
        absent: str = "zero",
        categories: int = 0,
        global_context: bool = False,
    ) -> None:
        super().__init__()
        COUNT.check(dims=dims, num_classes=num_classes, neck_dim=neck_dim, decoder_dim=decoder_dim)
        NATURAL.check(categories=categories)
        FRACTION_BELOW_1.check(drop_rate=drop_rate)
        self.categories, self.global_context, self.decoder_dim = categories, global_context, decoder_dim
        self.fpn = FPN(dims, neck_dim, absent=absent)
        self.levels = nn.ModuleList(
            nn.ModuleList(
                ConvNormAct(neck_dim if j == 0 else decoder_dim, decoder_dim, absent=absent) for j in range(max(i, 1))
            )
            for i in range(len(dims))
        )
        more = (CATEGORY_DIM if categories else 0) + (2 * neck_dim if global_context else 0)
        self.embedding = nn.Embedding(categories, CATEGORY_DIM) if categories else None
        self.fuse = nn.Sequential(nn.Linear(decoder_dim + more, decoder_dim), nn.ReLU()) if more else None
        self.drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier for other classes."""
        COUNT.check(num_classes=num_classes)
        like = next(self.parameters())
        self.num_classes = num_classes
        self.classifier = nn.Linear(self.decoder_dim, num_classes, device=like.device, dtype=like.dtype)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, stages: Sequence[PointSet], category: Int[Tensor, "B"] | None = None) -> PointSet:
        """Logits at the points of the finest stage.

        Args:
            stages: outputs of the stages, the finest first.
            category: the category of each set, if there are categories.

        Raises:
            ValueError: if there are categories and none are given, or the reverse, or one is out of range.
        """
        self._check_category(stages[0], category)
        near = self.fpn.neighborhoods(stages)
        pyramid = self.fpn(stages, near)
        up: list[Lift] = [fine.layout.lift(fine, coarse, 2) for fine, coarse in pairwise(stages)]
        total = self.levels[0][0](pyramid[0], near[0])  # type: ignore[index]
        for i in range(1, len(stages)):
            x = pyramid[i]
            for j, layer in enumerate(cast(Iterable[ConvNormAct], self.levels[i])):
                x = up[i - j - 1](layer(x, near[i - j]))
            total = total + x
        if self.fuse is not None:
            total = self.fuse(self._with_context(total, stages, pyramid[-1], category))
        return stages[0].with_feat(self.classifier(self.drop(total)))

    def _with_context(
        self,
        x: Float[Tensor, "N C"],
        stages: Sequence[PointSet],
        coarsest: Float[Tensor, "Q K"],
        category: Int[Tensor, "B"] | None,
    ) -> Float[Tensor, "N A"]:
        """The features of each point beside those of its set and category."""
        sets, parts = SetIndex.of(stages[0]), [x]
        if self.global_context:
            context = [pooled(stages[-1].with_feat(coarsest), how) for how in ("avg", "max")]
            parts.append(sets.broadcast(torch.cat(context, dim=1)))
        if self.embedding is not None:
            parts.append(sets.broadcast(self.embedding(category)).to(x.dtype))
        return torch.cat(parts, dim=1)

    def _check_category(self, points: PointSet, category: Int[Tensor, "B"] | None) -> None:
        if (category is not None) != bool(self.categories):
            given = "none were given" if category is None else "some were given"
            raise ValueError(f"the network has {self.categories} categories, and {given}")
        if category is None:
            return
        if category.shape != (points.num_sets,) or category.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"category must hold an integer for each of {points.num_sets} sets, got {tuple(category.shape)} "
                f"{category.dtype}"
            )
        if category.device.type == "cpu" and not 0 <= int(category.min()) <= int(category.max()) < self.categories:
            raise ValueError(f"categories must be from 0 to {self.categories - 1}, got {category.tolist()}")

    def macs(self, points: Sequence[int]) -> Macs:
        """Multiply-adds for one set with this many points at each stage. Bilinear lifts count 4 an output."""
        macs = self.fpn.macs(points)
        for i, level in enumerate(self.levels):
            for j, layer in enumerate(cast(Iterable[ConvNormAct], level)):
                macs += layer.macs(points[i - j])
                macs += Macs(other=4 * points[i - j - 1] * self.decoder_dim if i else 0)
        if self.fuse is not None:
            macs += linear_macs(points[0], cast(nn.Linear, self.fuse[0]))
        return macs + linear_macs(points[0], self.classifier)
