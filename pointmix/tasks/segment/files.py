"""Files of images and clouds as inputs of a segmenter, prepared as in evaluation."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from pointmix.data.clouds.points import finite_points
from pointmix.data.clouds.scale import ScaleCheck, measure
from pointmix.data.images.config import filled
from pointmix.data.segment.clouds.files import read_file
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.images.rgbd import as_labeled_cloud, read_meters
from pointmix.data.segment.resolve import is_cloud
from pointmix.data.segment.sample import LabeledCloud, LabeledImage
from pointmix.data.segment.source import SEGMENT_SOURCES
from pointmix.io import is_image, read_image, read_mask
from pointmix.io.errors import UnreadableSample
from pointmix.layouts.sparse import SparseGrid
from pointmix.pointset import PointSet

DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy")


class Input(NamedTuple):
    """A file.

    Args:
        points: what the inference takes.
        image: of images.
        pos: of clouds, as in the file.
        good: (N,) of clouds of which points were dropped: which of them are among `points`; None: all.
    """

    points: PointSet
    image: Image.Image | None = None
    pos: Float[np.ndarray, "N 3"] | None = None
    good: Bool[np.ndarray, " N"] | None = None


class FileReader:
    """Reads files as a network takes them.

    Args:
        cfg: data settings of the network.
        run: what messages call it.
        args: has the flags of `add_arguments`.
        extent: of the training clouds, see `ScaleCheck`.

    Raises:
        ValueError: flags do not suit the data.
        FileNotFoundError: there is no such mask.
    """

    def __init__(self, cfg: SegmentDataConfig, run: str, args: Namespace, *, extent: float | None = None) -> None:
        kind = SEGMENT_SOURCES.find(cfg.source).kind
        self.clouds, self.has_depth = kind == "cloud", kind == "rgbd"
        if self.has_depth and not args.depth:
            raise ValueError(f"{run} takes images with depth; give the depth image with --depth")
        for flag in ("depth", "depth_scale", "intrinsics"):
            if not self.has_depth and getattr(args, flag) is not None:
                raise ValueError(f"--{flag.replace('_', '-')} is for images with depth, {run} takes none")
        if args.mask and is_cloud(cfg):
            raise ValueError(f"--mask is for images, {run} takes clouds")
        for flag in ("nan", "index", "columns"):
            if not self.clouds and getattr(args, flag) is not None:
                raise ValueError(f"--{flag} is for clouds, {run} takes images")
        if args.mask and not Path(args.mask).is_file():
            raise FileNotFoundError(f"no mask file {args.mask}")
        self.cfg, self.run, self.args = cfg, run, args
        self.drops = (args.nan or cfg.nan) == "drop"
        self.check = ScaleCheck(extent, cfg.normalize)
        whole = dataclasses.replace(cfg, keep_ratio=1.0)
        from pointmix.data.segment.loaders import transform_of

        self.transform = transform_of(whole, training=False)

    def __call__(self, path: str) -> Input:
        """Read a file.

        Raises:
            FileNotFoundError, ValueError: it cannot be read, is of another kind, or lacks features; one line.
        """
        if self.clouds:
            return self._cloud(path)
        if not is_image(path):
            raise ValueError(f"{path} is no image, {self.run} takes images")
        image = read_image(path, filled(self.cfg.in_chans))
        unlabeled = np.zeros((image.height, image.width), dtype=np.int64)
        sample = LabeledImage(image, unlabeled)
        if self.has_depth:
            sample = self._with_depth(sample, path)
        try:
            if is_cloud(self.cfg):
                cloud = as_labeled_cloud(sample)
                self.check(path, *measure(cloud.pos))
                return Input(self.transform(cloud).points, pos=cloud.pos)
            points = self.transform(sample).points
        except UnreadableSample as e:
            raise ValueError(f"{path}: {e}") from e
        if self.args.mask:
            visible = read_mask(self.args.mask, (image.height, image.width)).flatten()  # (H * W,)
            layout = points.as_sparse().layout
            assert isinstance(layout, SparseGrid)
            kept = visible[layout.cell[:, 0] * image.width + layout.cell[:, 1]]
            if not kept.any():
                raise ValueError(f"{path}: no pixel is left under mask {self.args.mask}")
            points = points.subset(kept)
        return Input(points, image=image)

    def _cloud(self, path: str) -> Input:
        if is_image(path):
            raise ValueError(f"{path} is an image, {self.run} takes clouds")
        try:
            columns = self.args.columns or self.cfg.columns or ()
            found = read_file(path, self.cfg.label_name, index=self.args.index, keys=self.cfg.keys, columns=columns)
            unlabeled = np.zeros(len(found.pos), dtype=np.int64)
            cloud = LabeledCloud(found.pos, found.features, unlabeled, color_scale=found.color_scale)
            names = self.cfg.features or ()
            good = finite_points(cloud, names, name=path) if self.drops else None
            used = cloud if good is None else cloud.subset(good, names)
            self.check(path, *measure(used.pos))
            return Input(self.transform(used).points, pos=cloud.pos, good=good)
        except UnreadableSample as e:
            raise ValueError(f"{path}: {e}") from e

    def _with_depth(self, sample: LabeledImage, path: str) -> LabeledImage:
        file = depth_file(path, self.args.depth)
        scale = self.args.depth_scale or self.cfg.depth_scale or 1000.0
        depth = read_meters(file, scale, (sample.image.height, sample.image.width))
        given = self.args.intrinsics
        camera = self.cfg.intrinsics if given is None else (given[0], given[1], given[2], given[3])
        return dataclasses.replace(sample, depth=depth, intrinsics=camera)


def depth_file(path: str, depth: str) -> Path:
    """The depth image of an image: `depth`, or in a folder the file of the same name, or with depth in place of rgb or
    color in it.

    Raises:
        FileNotFoundError: there is none.
    """
    if not Path(depth).is_dir():
        return Path(depth)
    stem = Path(path).stem
    names = dict.fromkeys([stem, stem.replace("rgb", "depth"), stem.replace("color", "depth")])
    for name in names:
        for suffix in DEPTH_SUFFIXES:
            file = Path(depth, name + suffix)
            if file.is_file() and file.resolve() != Path(path).resolve():
                return file
    raise FileNotFoundError(
        f"no depth image for {path}: {depth} has no file {' or '.join(names)} in .png, .tif or .npy"
    )
