"""The inference that data settings and flags ask for: that of validation, pointmix evaluate and pointmix predict."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

import torch

from pointmix.data.segment.clouds.crops import box_cover, grid_fragments, normalize_crop, sphere_cover
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.resolve import is_cloud, is_sparse
from pointmix.pointset import PointSet
from pointmix.tasks.segment.inference.base import Infer
from pointmix.tasks.segment.inference.clouds import CloudInfer, Index, OnePerCell
from pointmix.tasks.segment.inference.images import ImageInfer
from pointmix.tasks.segment.inference.votes import vote_views

IMAGE_FLAGS = {"sliding": None, "stride": None, "flip": False, "scales": None}  # and their defaults


def choose_infer(cfg: SegmentDataConfig, args: Namespace | None = None) -> Infer:
    """How a network trained on these data is applied to whole images, scenes or objects.

    Args:
        cfg: resolved.
        args: has the flags of `add_arguments`; None: their defaults.

    Raises:
        ValueError: a flag is out of range, or of the other kind of data; or partial images are to be resized.
    """
    args = args or Namespace(**IMAGE_FLAGS, votes=1, fast=False)
    if is_cloud(cfg):
        if changed := [key for key, default in IMAGE_FLAGS.items() if getattr(args, key) != default]:
            raise ValueError(f"--{changed[0]} is for images; data.source {cfg.source} has clouds")
        return cloud_infer(cfg, votes=args.votes, fast=args.fast)
    if args.votes != 1:
        raise ValueError(
            f"--votes {args.votes} is for clouds; data.source {cfg.source} has images, see --flip, --scales"
        )
    if args.fast:
        raise ValueError(f"--fast is for clouds; data.source {cfg.source} has images")
    infer = ImageInfer(
        short_side=cfg.short_side,
        size_multiple=cfg.size_multiple,
        window=None if args.sliding is None else tuple(args.sliding),
        stride=None if args.stride is None else tuple(args.stride),
        flip=args.flip,
        scales=(1.0,) if args.scales is None else tuple(args.scales),
    )
    if infer.resizes and is_sparse(cfg):
        raise ValueError(
            f"{what_resizes(cfg)} resizes or divides images; partial ones are taken whole, in their own size"
        )
    return infer


def what_resizes(cfg: SegmentDataConfig) -> str:
    """The setting or flag because of which an inference resizes images."""
    changed = [key for key in ("short_side", "size_multiple") if getattr(cfg, key) not in (None, 1)]
    return f"data.{changed[0]}" if changed else "--sliding or --scales"


def cloud_infer(cfg: SegmentDataConfig, *, votes: int = 1, fast: bool = False) -> Infer:
    """That of clouds, with crops and grid cells as in training; arguments are the flags of `add_arguments`."""
    spheres = partial(_spheres, radius=cfg.crop_extent, spacing=1.15 if fast else 1.0)
    boxes = partial(_boxes, cfg=cfg, spacing=1.0 if fast else 0.5)
    cells = cfg.grid_size
    infer = CloudInfer(
        normalize=partial(normalize_crop, cfg=cfg),
        fragments=None if fast or cells is None else partial(grid_fragments, grid_size=cells),
        cover={"none": None, "sphere": spheres, "box": boxes}[cfg.crop or "none"],
        max_points=cfg.max_points,
        views=vote_views(cfg, votes),
    )
    return OnePerCell(infer, cells) if fast and cells is not None else infer


def _spheres(points: PointSet, *, radius: float | None, spacing: float) -> list[Index]:
    return _everything(points) if radius is None else sphere_cover(points.pos, radius, spacing=spacing)


def _boxes(points: PointSet, *, cfg: SegmentDataConfig, spacing: float) -> list[Index]:
    side = cfg.crop_extent
    return _everything(points) if side is None else box_cover(points.pos, side, up=cfg.up, spacing=spacing)


def _everything(points: PointSet) -> list[Index]:
    """A crop of all points, where only `max_points` bounds crops."""
    return [torch.arange(len(points.feat), device=points.feat.device)]
