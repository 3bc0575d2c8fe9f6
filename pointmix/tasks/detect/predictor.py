"""Boxes and masks for files."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.join import join_items
from pointmix.data.detect.sample import DetectBatch
from pointmix.data.images.config import filled
from pointmix.explain.detect_images import overlay
from pointmix.io import is_image, read_image, read_mask
from pointmix.tasks.detect.flags import RESULTS
from pointmix.tasks.detect.found import Found, in_pixels
from pointmix.tasks.detect.pictures import drawn
from pointmix.tasks.detect.results import CocoFile
from pointmix.tasks.protocols import TABLES, Info, Row
from pointmix.tasks.segment.outputs import OutputNames
from pointmix.utils.atomic import check_place, replacing
from pointmix.utils.messages import counted
from pointmix.utils.ranges import FRACTION


class Input(NamedTuple):
    """An image, and what a network takes of it: a batch of one."""

    image: Image.Image
    batch: DetectBatch


class FileReader:
    """Reads images as a network takes them.

    Args:
        cfg: data settings of the network.
        run: what messages call it.
        mask: file of a mask for each image, or None.

    Raises:
        FileNotFoundError: there is no such mask.
    """

    def __init__(self, cfg: DetectDataConfig, run: str, mask: str | None) -> None:
        if mask and not Path(mask).is_file():
            raise FileNotFoundError(f"no mask file {mask}")
        self.cfg, self.run, self.mask = cfg, run, mask
        from pointmix.data.detect.transforms import EvalTransform

        self.transform = EvalTransform(dataclasses.replace(cfg, keep_ratio=1.0))

    def __call__(self, path: str) -> Input:
        """Read a file; ValueError or OSError in one line if it cannot be used."""
        if not is_image(path):
            raise ValueError(f"{path} is no image, {self.run} takes images")
        image = read_image(path, filled(self.cfg.in_chans))
        item = self.transform.image(image)
        if self.mask:
            item = item._replace(visible=visible_pixels(self.mask, (image.height, image.width), item.image))
        return Input(image, join_items([item], multiple=self.cfg.size_multiple))


class DetectPredictor:
    """The number of objects of each class in a file and, with args.out, pictures and a file of boxes and masks.

    Args:
        model: a detector in evaluation mode.
        cfg: settings of the data it was trained on.
        args: has the flags of `add_arguments`, and files, the inputs.

    Raises:
        ValueError: a flag is wrong.
        OSError: nothing can be written to args.out.
    """

    columns: Sequence[str] = ("class", "found", "best score")
    writes_out = True

    def __init__(self, model: nn.Module, info: Info, cfg: DetectDataConfig, args: Namespace) -> None:
        FRACTION.check("--", score=args.score)
        is_file = str(args.out).lower().endswith(TABLES)
        self.folder = Path(args.out) if args.out and not is_file else None
        self.results = Path(args.out) if is_file else self.folder and self.folder / RESULTS
        if self.results:
            check_place(self.results)
        self.model, self.args = model, args
        self.read = FileReader(cfg, info["path"], args.mask)
        self.classes: list[str] = info["classes"]
        self.file = CocoFile(self.classes, info["category_ids"])
        self.names = OutputNames(self.folder or Path("."), args.files)

    def predict(self, path: str) -> list[Row]:
        image, batch = self.read(path)
        size = (image.height, image.width)
        device = next(self.model.parameters()).device
        (detections,) = self.model(batch.points.to(device), batch.sizes.to(device))
        height, width = batch.sizes[0].tolist()
        lattice = (height, width)
        found = at_least(in_pixels(detections, lattice=lattice, size=size, name=path), self.args.score)
        if self.folder:
            (file,) = self.names(path, ["_overlay.png"])
            with replacing(file) as opened:
                overlay(image, drawn(found), self.classes).save(opened, format="png")
        if self.results:
            self.file.add(path, size, found)
        rows: list[Row] = []
        for label in np.unique(found.labels).tolist():
            scores = found.scores[found.labels == label]
            rows.append((self.classes[label], len(scores), float(scores.max())))
        return rows or [("nothing", 0, 0.0)]

    def finish(self) -> list[str]:
        if not self.results:
            return []
        self.file.write(self.results)
        found, files = counted(len(self.file.annotations), "detection"), counted(len(self.file.images), "file")
        return [f"{found} in {files} in {self.results}"]


def at_least(found: Found, score: float) -> Found:
    """The detections with this score or a larger one."""
    keep = found.scores >= score
    masks = None if found.masks is None else tuple(mask for mask, kept in zip(found.masks, keep, strict=True) if kept)
    return Found(found.boxes[keep], found.labels[keep], found.scores[keep], masks)


def visible_pixels(path: str, size: tuple[int, int], resized: Float[Tensor, "C h w"]) -> Bool[Tensor, "h w"]:
    """The pixels of a resized image that a mask of the image's size H, W does not hide: the nearest of the mask.

    Raises:
        FileNotFoundError, ValueError: the mask cannot be read, has another size, or hides all pixels.
    """
    visible = read_mask(path, size).float()
    kept = F.interpolate(visible[None, None], resized.shape[1:], mode="nearest")[0, 0] > 0
    if not kept.any():
        raise ValueError(f"no pixel is left under mask {path}")
    return kept
