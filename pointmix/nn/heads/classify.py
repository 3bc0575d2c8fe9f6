"""Classification: pooling over the points of each set, then a linear classifier, with timm's interface to it."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from pointmix.nn.norm import SetIndex
from pointmix.ops.segments import segment_max
from pointmix.pointset import PointSet
from pointmix.utils.ranges import FRACTION_BELOW_1, NATURAL


class ClassifierBase(nn.Module):
    """A network with a linear classifier, `head`, and dropout before it, `head_drop`.

    Both are attributes of the network itself, not of a module in between, so that the classifier is `head.weight` and
    `head.bias` in state dicts, as in timm and in the authors' checkpoints.

    `poolings` are the values of `global_pool` that the network knows: "avg" and "max" over the points of each set, ""
    for the classifier on every point.
    """

    poolings: ClassVar[tuple[str, ...]] = ("avg", "")
    head: nn.Module
    head_drop: nn.Dropout

    def set_classifier(self, dim: int, num_classes: int, *, global_pool: str, drop_rate: float) -> None:
        """Add the classifier of `dim` channels; called by the network's constructor.

        Raises:
            ValueError: for an unknown pooling, negative `num_classes`, or a `drop_rate` outside [0, 1].
        """
        FRACTION_BELOW_1.check(drop_rate=drop_rate)
        self.head_hidden_size = dim
        self.head_drop = nn.Dropout(drop_rate)
        self._new_classifier(num_classes, global_pool)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier for other classes; 0 removes it.

        Raises:
            ValueError: for an unknown pooling or negative `num_classes`.
        """
        like = next(self.parameters())
        self._new_classifier(num_classes, self.global_pool if global_pool is None else global_pool)
        self.init_classifier()
        self.head.to(like.device, like.dtype)

    def _new_classifier(self, num_classes: int, global_pool: str) -> None:
        if global_pool not in self.poolings:
            raise ValueError(f"global_pool must be {' or '.join(map(repr, self.poolings))}, got {global_pool!r}")
        NATURAL.check(num_classes=num_classes)
        self.num_classes, self.global_pool = num_classes, global_pool
        self.head = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def init_classifier(self) -> None:
        """Initialize a new classifier; the uniform default of `nn.Linear` unless the network overrides it."""

    def get_classifier(self) -> nn.Module:
        """The linear map to logits; an identity if there are no classes."""
        return self.head

    def before_classifier(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """What is applied to pooled features before the classifier."""
        return self.head_drop(x)

    def forward_head(
        self, x: Tensor | PointSet, pre_logits: bool = False
    ) -> Float[Tensor, "B K"] | Float[Tensor, "B K H W"] | PointSet:
        """Pooling over the points of each set, then the classifier; without pooling the classifier on every point.

        Args:
            x: features of points, or a map (B, C, H, W).
            pre_logits: leave out the classifier.
        """
        points = x if isinstance(x, PointSet) else PointSet.from_batch(x)
        feat = self.before_classifier(pooled(points, self.global_pool))
        feat = feat if pre_logits else self.head(feat)
        if self.global_pool:
            return feat
        points = points.with_feat(feat)
        return points if isinstance(x, PointSet) else to_map(points)


def to_map(points: PointSet) -> Float[Tensor, "B C H W"]:
    """Features of points on a full grid as a map."""
    maps = points.to_image()
    assert isinstance(maps, Tensor)
    return maps


def pooled(points: PointSet, how: str) -> Float[Tensor, "N C"]:
    """Mean ("avg") or maximum ("max") over the points of each set; all points for ""."""
    if how == "max":
        return segment_max(points.feat, points.batch, points.num_sets)
    return SetIndex.of(points).mean(points.feat) if how else points.feat
