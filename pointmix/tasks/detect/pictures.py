"""Detections as they are drawn: over the image as it was read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pointmix.data.detect import masks as rle
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.join import join_items
from pointmix.data.detect.sample import DetectBatch, Objects, Rle, Truth
from pointmix.data.loader import BatchLoader
from pointmix.explain.detect_images import Drawn
from pointmix.explain.detect_predictions import draw_detections
from pointmix.tasks.detect.found import Found, in_pixels
from pointmix.tasks.protocols import Info

NUMBER = 4  # images in the picture, spread evenly over the test data


@torch.no_grad()
def draw_test_images(
    path: Path, model: nn.Module, test: BatchLoader[DetectBatch], cfg: DetectDataConfig, info: Info
) -> None:
    """Draw some test images, what is in them, and what the network finds.

    Args:
        path: of the PNG.
        model: in evaluation mode.
        test: the test data, with an image that can be read.
        cfg, info: of the run.
    """
    device = next(model.parameters()).device
    images, truths, predictions, names = [], [], [], []
    for position in np.unique(np.linspace(0, len(test.samples) - 1, NUMBER).astype(int)).tolist():
        item, _ = test.samples[0, position]
        if item is None:
            continue
        batch = join_items([item], multiple=cfg.size_multiple)
        (detections,) = model(batch.points.to(device), batch.sizes.to(device))
        truth: Truth = item.truth
        lattice = (item.image.shape[1], item.image.shape[2])
        predictions.append(drawn(in_pixels(detections, lattice=lattice, size=truth.size, name=truth.name)))
        truths.append(drawn_truth(truth.objects))
        image = test.samples.source.read(int(test.samples.indices[position])).image
        images.append(colors_of(image, item.visible))
        names.append(Path(truth.name).name)
    draw_detections(path, images, truths, predictions, info["classes"], names=names)


def drawn(found: Found) -> Drawn:
    """Detections for drawing."""
    return Drawn(found.boxes, found.labels, found.scores, _decoded(found.masks))


def drawn_truth(objects: Objects) -> Drawn:
    """Objects for drawing."""
    return Drawn(objects.boxes, objects.labels, masks=_decoded(objects.masks), crowd=objects.crowd)


def _decoded(masks: Sequence[Rle] | None) -> Iterator[Bool[np.ndarray, "H W"]] | None:
    """The pixels of masks, decoded one at a time."""
    return None if masks is None else (rle.decode([mask], (0, 0))[0] > 0 for mask in masks)


def colors_of(image: Image.Image, visible: Bool[Tensor, "h w"] | None) -> Float[np.ndarray, "H W 3"]:
    """The colors of an image in [0, 1], NaN where pixels are hidden.

    Args:
        visible: of the resized image; None for all.
    """
    colors = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    if visible is None:
        return colors
    hidden = ~F.interpolate(visible[None, None].float(), colors.shape[:2], mode="nearest")[0, 0].bool()
    return np.where(hidden[..., None].numpy(), np.nan, colors)
