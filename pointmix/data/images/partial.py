"""Partial images: random masks, transforms of masked images, and their visible points.

Workers send a partial image as bytes and a mask. On the device, until it enters the network, it is a tensor whose last
channel is the mask: 1 where a pixel is visible, 0 where it is hidden, and hidden pixels are 0 in every channel. Mixup
and CutMix then work as on whole images; the points of a mixed pair are those of both images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from pointmix.data.images.config import MASK_KINDS
from pointmix.data.images.normalize import ByteImage
from pointmix.io.errors import UnreadableSample
from pointmix.layouts.grid import grid_coordinates
from pointmix.layouts.sparse import SparseGrid
from pointmix.ops.ragged import counts_to_ptr
from pointmix.pointset import PointSet

TRIES = 10  # random crops without a visible pixel before the whole image is taken


def random_mask(
    size: tuple[int, int], *, keep_ratio: tuple[float, float], kind: str, patch: int
) -> Bool[Tensor, "H W"]:
    """A random mask with true for visible, at least one pixel; drawn from torch's global generator.

    With the same random state, the visible patches or pixels of a smaller fraction are a subset of those of a larger.

    Args:
        size: rows and columns.
        keep_ratio: range of the visible fraction, which is drawn uniformly from it.
        kind: "patches" (visible squares), "block" (one hidden rectangle with an aspect ratio up to 1:2, as far as it
            fits), "pixels" (visible pixels) or "any" (one of these).
        patch: side of a patch, in pixels; the last ones are cut where it does not divide the side.
    """
    (low, high), (height, width) = keep_ratio, size
    ratio, which = torch.rand(2).tolist()
    ratio = low + (high - low) * ratio
    if kind == "any":
        kind = MASK_KINDS[int(which * 3)]
    if kind == "block":
        return _without_block(size, (1 - ratio) * height * width)
    side = patch if kind == "patches" else 1
    rows, cols = -(-height // side), -(-width // side)
    visible = torch.rand(rows * cols).argsort()[: max(1, round(ratio * rows * cols))]
    mask = torch.zeros(rows * cols, dtype=torch.bool).index_fill(0, visible, True).view(rows, cols)
    return mask.repeat_interleave(side, 0).repeat_interleave(side, 1)[:height, :width]


def _without_block(size: tuple[int, int], area: float) -> Bool[Tensor, "H W"]:
    """Everything but a rectangle of about `area` pixels."""
    height, width = size
    mask = torch.ones(size, dtype=torch.bool)
    tall, down, right = torch.rand(3).tolist()
    rows = round(math.sqrt(area * 2 ** (2 * tall - 1)))
    rows = min(max(rows, math.ceil(area / width), 1), height)
    cols = min(round(area / rows), width)
    cols -= rows * cols == height * width  # at least one pixel stays visible
    top, left = int(down * (height - rows + 1)), int(right * (width - cols + 1))
    mask[top : top + rows, left : left + cols] = False
    return mask


class RandomMask:
    """The last step of a transform: adds a random mask to an image, see `random_mask`."""

    def __init__(self, *, keep_ratio: tuple[float, float], kind: str, patch: int) -> None:
        self.draw = partial(random_mask, keep_ratio=keep_ratio, kind=kind, patch=patch)

    def __call__(self, image: ByteImage) -> ByteImage:
        return image._replace(mask=self.draw((image.pixels.shape[1], image.pixels.shape[2])))


class MaskedTransform:
    """Applies the transform of a whole image to one whose alpha channel is its mask ('LA' or 'RGBA').

    Geometric steps are applied to colors and mask, where Pillow weights by the mask; the others to the colors only.

    Args:
        steps: the transform of a whole image to bytes, geometric steps first.
        side: of the resulting image. If `TRIES` random crops in a row have no visible pixel, the whole image is resized
            to it; None, for evaluation, refuses such an image.
    """

    def __init__(self, steps: Sequence[Callable[[Any], Any]], *, side: int | None) -> None:
        from timm.data.transforms import RandomResizedCropAndInterpolation
        from torchvision import transforms  # both take seconds to import

        geometric = (
            transforms.Resize,
            transforms.CenterCrop,
            transforms.RandomCrop,
            RandomResizedCropAndInterpolation,
            transforms.RandomHorizontalFlip,
            transforms.RandomVerticalFlip,
        )
        move = list(takewhile(lambda step: isinstance(step, geometric), steps))
        self.move, self.rest = transforms.Compose(move), transforms.Compose(steps[len(move) :])
        self.side = side

    def __call__(self, image: Image.Image) -> ByteImage:
        for _ in range(1 if self.side is None else TRIES):
            moved = self.move(image)
            if np.asarray(moved.getchannel("A")).any():
                break
        else:
            if self.side is None:
                raise UnreadableSample(f"no visible pixel is left in the central {moved.height}x{moved.width} crop")
            from torchvision.transforms.functional import resize

            moved = resize(image, [self.side, self.side])
        alpha = torch.from_numpy(np.array(moved.getchannel("A")))  # (S, S) uint8
        mask = alpha >= alpha.max().clamp(1, 128)  # at least half visible, or else the most visible ones
        return self.rest(moved.convert(moved.mode[:-1]))._replace(mask=mask)


def partial_points(images: Float[Tensor, "B D H W"], *, coord_mode: str = "inclusive") -> PointSet:
    """The visible pixels of a batch whose last channel is the mask, on their lattice.

    A mask value between 0 and 1 is the weight of a pixel after mixup; its channels are divided by it. An image without
    a visible pixel after CutMix gets its center pixel, gray. On a GPU this synchronizes, to get the number of points.

    Args:
        images: the output of `hide` (D channels, the last one the mask), possibly mixed.
        coord_mode: the model's, see `PointSet.from_image`.
    """
    batch, channels, height, width = images.shape
    values = images.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    visible = values[..., -1] > 1e-6  # (B, H * W)
    visible[:, height // 2 * width + width // 2] |= ~visible.any(1)
    count = visible.sum(1)
    index = visible.flatten().nonzero().squeeze(1)  # (N,)
    values = values.flatten(0, 1).index_select(0, index)  # (N, C + 1)
    feat = values[:, :-1] / values[:, -1:].clamp(min=1e-6)
    index = index % (height * width)
    pos = grid_coordinates((height, width), coord_mode, images.dtype, images.device).index_select(0, index)
    cell = torch.stack([index // width, index % width], dim=1)
    size = torch.tensor([[height, width]], device=images.device).expand(batch, 2)
    return PointSet(pos, feat, counts_to_ptr(count), SparseGrid(cell, size))
