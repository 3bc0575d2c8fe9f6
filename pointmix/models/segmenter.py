"""Segmenters: any backbone with a Semantic FPN, for images, partial images and clouds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from pointmix.layouts.cloud import Cloud
from pointmix.layouts.lift import Lift
from pointmix.models.pyramid import DenseModel, Pyramid, create_pyramid
from pointmix.nn.heads.segment import SemanticFPN
from pointmix.pointset import PointSet
from pointmix.profile.macs import Part, parameters


class Segmenter(DenseModel):
    """Logits for every pixel or point.

    Args:
        backbone: gives the points of its stages; its input is a `PointSet`.
        head: what makes logits of them.
        in_chans: feature channels of the input.
        coord_dims: coordinates of a position; None for any.
        coord_mode: coordinates of the pixels of an image batch, see `PointSet.from_image`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: SemanticFPN,
        *,
        in_chans: int,
        coord_dims: int | None = 2,
        coord_mode: str = "inclusive",
    ) -> None:
        super().__init__(backbone, in_chans=in_chans, coord_dims=coord_dims, coord_mode=coord_mode)
        self.head = head

    @property
    def num_classes(self) -> int:
        return self.head.num_classes

    def forward(
        self, x: Tensor | PointSet, category: Int[Tensor, "B"] | None = None, *, lift: bool = True
    ) -> Tensor | tuple[PointSet, Lift]:
        """Logits (N, K) of a PointSet, in the order of its points; (B, K, H, W) of images (B, C, H, W), (B, N, K) of
        clouds (B, N, D).

        Args:
            category: (B,) the category of each object, if the network has categories.
            lift: whether to lift the logits to the input's points. If not, the result is the points of the finest stage
                with their logits, and the lift, which a loss can apply to some of the points at a time.

        Raises:
            ValueError: if the input does not suit the network.
        """
        points = self.as_points(x)
        coarse, way_up = self.coarse(points, category)
        if not lift:
            return coarse, way_up
        logits = way_up(coarse.feat)
        if isinstance(x, PointSet):
            return logits
        if x.ndim == 3:
            return logits.view(*x.shape[:2], -1)
        image = points.with_feat(logits).to_image()
        assert isinstance(image, Tensor)
        return image

    def coarse(self, points: PointSet, category: Int[Tensor, "B"] | None = None) -> tuple[PointSet, Lift]:
        """Logits at the points of the finest stage, and the lift to `points`, which are of the network's precision."""
        backbone = cast(Pyramid, self.backbone)
        stages = backbone.forward_intermediates(points, norm=True, intermediates_only=True)
        coarse = self.head(stages, category)
        if isinstance(coarse.layout, Cloud):
            points = points.as_cloud()
        return coarse, points.layout.lift(points, coarse, backbone.feature_info[0]["reduction"])

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier for other classes."""
        self.head.reset_classifier(num_classes)

    @torch.no_grad()
    def parts(self, points: PointSet) -> Iterator[Part]:
        """Parameters and multiply-adds of the backbone's stages and the head for one set; only reducers run."""
        backbone = cast(Pyramid, self.backbone)
        found = list(backbone.parts(backbone.as_points(points)))
        yield from found
        head = self.head.macs([part.size.points for part in found if part.size is not None])
        yield Part("semantic FPN", self.head.decoder_dim, parameters(self.head), head)


def create_segmenter(
    name: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    neck_dim: int = 256,
    decoder_dim: int = 128,
    decoder_drop_rate: float = 0.1,
    categories: int = 0,
    global_context: bool = False,
    **kwargs: Any,
) -> Segmenter:
    """A backbone with a Semantic FPN: logits for every pixel or point.

    `create_segmenter("coc_tiny", 150)` takes images and partial images; with `coord_dims=3` and `in_chans` features it
    takes clouds. A backbone of timm takes whole images.

    Args:
        name: one of our models or of timm's.
        num_classes: K.
        in_chans: channels of the input, besides coordinates.
        neck_dim, decoder_dim: channels of the head, see `SemanticFPN`.
        decoder_drop_rate: dropout before the classifier.
        categories, global_context: for parts of objects, see `SemanticFPN`.
        **kwargs: arguments of the backbone, such as `centers_per_side`.

    Raises:
        ValueError: there is no such model, a setting is out of range, or its maps are not of strides 4, 8, and so on.
        TypeError: the backbone does not take one of the arguments.
    """
    backbone, coord_dims, coord_mode = create_pyramid(name, in_chans=in_chans, **kwargs)
    head = SemanticFPN(
        [info["num_chs"] for info in cast(Pyramid, backbone).feature_info],
        num_classes,
        neck_dim=neck_dim,
        decoder_dim=decoder_dim,
        drop_rate=decoder_drop_rate,
        absent=kwargs.get("absent", "zero"),
        categories=categories,
        global_context=global_context,
    )
    return Segmenter(backbone, head, in_chans=in_chans, coord_dims=coord_dims, coord_mode=coord_mode)
