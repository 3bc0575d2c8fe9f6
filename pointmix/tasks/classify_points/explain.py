"""Pictures of the clusters in a cloud file or an RGB-D frame."""

from __future__ import annotations

import dataclasses
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.scale import ScaleCheck, measure
from pointmix.io import is_image
from pointmix.pointset import PointSet
from pointmix.tasks.classify_points.files import read_for, sampled_as
from pointmix.tasks.page import is_page, write_page_of
from pointmix.tasks.protocols import Info

if TYPE_CHECKING:
    from pointmix.explain.page.scene import Scene


class Trained(NamedTuple):
    """A trained network.

    Args:
        cfg: data settings of its run, resolved.
        info: metadata of its weights.
    """

    model: nn.Module
    cfg: PointDataConfig
    info: Info

    def check_scale(self, path: str, points: PointSet) -> None:
        """Warn of a cloud of another scale than those of its training, see `ScaleCheck`."""
        ScaleCheck(self.info.get("extent"), self.cfg.normalize)(path, *measure(points.pos.numpy()))


def explain(args: Namespace, run: Trained | None) -> None:
    """Draw args.file into args.out, a picture or a page, with the network of a run or else args.model.

    Raises:
        ValueError: flags, file and network do not go together; one line.
    """
    if args.intrinsics and not args.depth:
        raise ValueError("--intrinsics are of an image with --depth")
    if args.columns and (run is None or args.depth):
        raise ValueError("--columns goes with a cloud and a --run, which says what features it takes")
    if args.nan and (run is None or args.depth):
        raise ValueError("--nan goes with a cloud and a --run")
    if args.depth:
        _explain_frame(args, run)
    elif is_image(args.file):
        raise ValueError(f"{args.file} is an image, expected a cloud, or --depth with it")
    else:
        _explain_cloud(args, run)


def _explain_cloud(args: Namespace, run: Trained | None) -> None:
    from pointmix.explain import draw_clouds

    usual = "y"
    if run is None or args.mask:
        points = PointSet.from_file(args.file, args.mask, index=args.index)
        model = _named(args, channels=points.feat.shape[1], dims=points.pos.shape[1])
    else:
        model, cfg = run.model, dataclasses.replace(run.cfg, nan=args.nan or run.cfg.nan)
        points = read_for(args.file, cfg, run=args.run, index=args.index, columns=args.columns)
        run.check_scale(args.file, points)
        points = sampled_as(cfg)(points)
        usual = cfg.up or usual
    if is_page(args):
        _write_cloud_page(args, model, points, run, up=args.up or usual)
    else:
        draw_clouds(model, points, args.out, titles=[Path(args.file).name], up=args.up or usual)


def _write_cloud_page(args: Namespace, model: nn.Module, points: PointSet, run: Trained | None, *, up: str) -> None:
    from pointmix.explain.page.scene import cloud_scene

    _write_page(args, model, cloud_scene(points.to(args.device), up=up), run)


def _write_page(args: Namespace, model: nn.Module, scene: Scene, run: Trained | None) -> None:
    info = run.info if run else {"name": args.model, "classes": None}
    write_page_of(args, model, scene, name=info["name"], classes=info["classes"])


def _explain_frame(args: Namespace, run: Trained | None) -> None:
    from pointmix.explain import draw_clouds, draw_frames
    from pointmix.io import read_depth, read_masked_image

    (rgb, mask), depth = read_masked_image(args.file, args.mask, args.index), read_depth(args.depth)
    points = PointSet.from_rgbd(rgb, depth, args.intrinsics, mask, depth_scale=args.depth_scale)
    transform: Callable[[PointSet], PointSet] | None = None
    if run is None:
        model = _named(args, channels=points.feat.shape[1], dims=points.pos.shape[1])
    else:
        model, cfg, _ = run
        run.check_scale(args.file, points)
        normalize = sampled_as(cfg, keep_all=True)
        if cfg.features not in ((), ("rgb",)):
            raise ValueError(f"{args.run} takes {', '.join(cfg.features)}; a frame has colors alone")

        def transform(points: PointSet) -> PointSet:
            return normalize(points if cfg.features else points.with_feat(points.feat[:, :0]))

    cloud = points if transform is None else transform(points)
    if is_page(args) and args.up:
        _write_cloud_page(args, model, cloud, run, up=args.up)
    elif is_page(args):
        from pointmix.explain.frames import on_lattice
        from pointmix.explain.page.scene import frame_scene

        frame = on_lattice(cloud, depth, mask, depth_scale=args.depth_scale).to(args.device)
        _write_page(args, model, frame_scene(frame, rgb), run)
    elif not hasattr(model, "explain"):
        up = args.up or ("-y" if args.intrinsics else "-x")
        draw_clouds(model, cloud, args.out, titles=[Path(args.file).name], up=up)
    else:
        options = {"depth_scale": args.depth_scale, "transform": transform}
        draw_frames(model, [rgb], [depth], args.out, args.intrinsics, [mask], **options)


def _named(args: Namespace, *, channels: int, dims: int) -> nn.Module:
    """The network args.model for points with this many features and dimensions."""
    from pointmix.models import create_model, list_models
    from pointmix.models.weights import load_reference

    if args.model not in list_models():
        raise ValueError(f"{args.model} takes no clouds, expected one of {', '.join(list_models())}")
    model = create_model(args.model, in_chans=channels, coord_dims=dims)
    if args.checkpoint:
        load_reference(model, args.checkpoint)
    else:
        warnings.warn(f"{args.model} has random weights; give others with --run or --checkpoint", stacklevel=2)
    return model.to(args.device)
