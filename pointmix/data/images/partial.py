"""Images of which only some pixels are visible: masks drawn at random or read from files, and their points.

Workers send a partial image as bytes and a mask. On the device, until the network takes it, it is a tensor with its
mask as one channel more: 1 where a pixel is visible, 0 where it is hidden, and hidden pixels are 0 in every channel.
Mixup and CutMix work on it as on any other image, and the points that come out of a mixed pair are those of both, each
with what its own image says of it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import resize

from pointmix.data.images.source import BadMask, Source, UnreadableImage, decode
from pointmix.io.images import as_mask, upright
from pointmix.io.open_image import open_image
from pointmix.layouts.grid import grid_coordinates
from pointmix.layouts.sparse import SparseGrid
from pointmix.pointset import PointSet
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line

if TYPE_CHECKING:
    from pointmix.data.images.normalize import ByteImage

MASKS = ("patches", "block", "pixels", "any")
GEOMETRIC = (
    transforms.Resize,
    transforms.CenterCrop,
    transforms.RandomCrop,
    RandomResizedCropAndInterpolation,
    transforms.RandomHorizontalFlip,
    transforms.RandomVerticalFlip,
)
TRIES = 10  # random crops without a visible pixel before the whole image is taken


def random_mask(size: tuple[int, int], *, keep: tuple[float, float], kind: str, patch: int) -> Bool[Tensor, "H W"]:
    """A mask that keeps a share of an image, drawn from torch's global generator; true is visible, at least one pixel.

    With the same random state a mask of patches or pixels holds every mask of a smaller share.

    Args:
        size: rows and columns.
        keep: the smallest and the largest share that stays; the share is drawn evenly between them.
        kind: "patches" (squares that stay), "block" (one rectangle that is hidden, its sides up to 1 to 2 while it
            fits), "pixels" (which stay) or "any" (one of these).
        patch: side of a patch, in pixels; the last ones are cut where it does not divide the side.
    """
    (low, high), (height, width) = keep, size
    share, which = torch.rand(2).tolist()
    share = low + (high - low) * share
    if kind == "any":
        kind = MASKS[int(which * 3)]
    if kind == "block":
        return _without_block(size, (1 - share) * height * width)
    side = patch if kind == "patches" else 1
    rows, cols = -(-height // side), -(-width // side)
    stays = torch.rand(rows * cols).argsort()[: max(1, round(share * rows * cols))]
    mask = torch.zeros(rows * cols, dtype=torch.bool).index_fill(0, stays, True).view(rows, cols)
    return mask.repeat_interleave(side, 0).repeat_interleave(side, 1)[:height, :width]


def _without_block(size: tuple[int, int], area: float) -> Bool[Tensor, "H W"]:
    """Everything but a rectangle of about `area` pixels."""
    height, width = size
    mask = torch.ones(size, dtype=torch.bool)
    tall, down, right = torch.rand(3).tolist()
    rows = round(math.sqrt(area * 2 ** (2 * tall - 1)))
    rows = min(max(rows, math.ceil(area / width), 1), height)
    cols = min(round(area / rows), width)
    cols -= rows * cols == height * width  # something must stay
    top, left = int(down * (height - rows + 1)), int(right * (width - cols + 1))
    mask[top : top + rows, left : left + cols] = False
    return mask


def hide(images: Float[Tensor, "*B C H W"], masks: Bool[Tensor, "*B H W"]) -> Float[Tensor, "*B C+1 H W"]:
    """The images with their masks as the last channel, hidden pixels 0."""
    masks = masks.unsqueeze(-3)  # (*B, 1, H, W)
    return torch.cat([images * masks, masks.to(images.dtype)], dim=-3)


class RandomMask:
    """The last step of a transform: hides all but a share of an image, see `random_mask`."""

    def __init__(self, *, keep: tuple[float, float], kind: str, patch: int) -> None:
        self.draw = partial(random_mask, keep=keep, kind=kind, patch=patch)

    def __call__(self, image: ByteImage) -> ByteImage:
        return image._replace(mask=self.draw(image.pixels.shape[-2:]))


class MaskedTransform:
    """A transform of Pillow images for one whose alpha channel is its mask ('LA' or 'RGBA').

    Steps that move pixels see both, and Pillow resizes by what is visible alone; the others see the colors.

    Args:
        steps: the transform of a whole image to bytes, those steps first.
        side: of the image in the end. If ten random crops in a row hold no visible pixel, the whole image is
            squeezed to it; None, for evaluation, refuses such an image.
    """

    def __init__(self, steps: Sequence[Callable], *, side: int | None) -> None:
        move = list(takewhile(lambda step: isinstance(step, GEOMETRIC), steps))
        self.move, self.rest = transforms.Compose(move), transforms.Compose(steps[len(move) :])
        self.side = side

    def __call__(self, image: Image.Image) -> ByteImage:
        for _ in range(1 if self.side is None else TRIES):
            moved = self.move(image)
            if np.asarray(moved.getchannel("A")).any():
                break
        else:
            if self.side is None:
                raise UnreadableImage(f"no visible pixel is left in the central {moved.height}x{moved.width} crop")
            moved = resize(image, [self.side, self.side])
        alpha = torch.from_numpy(np.array(moved.getchannel("A")))  # (S, S) uint8
        mask = alpha >= alpha.max().clamp(1, 128)  # what is half visible, or else the most
        return self.rest(moved.convert(moved.mode[:-1]))._replace(mask=mask)


def partial_points(images: Float[Tensor, "B C+1 H W"], *, coord_mode: str = "inclusive") -> PointSet:
    """The visible pixels of a batch whose last channel is the mask, on their lattice.

    A mask between 0 and 1 is the weight that mixing left of a pixel; its values are divided by it. An image that
    CutMix left without a pixel gets the one in the middle, gray. On a GPU the number of points is waited for.

    Args:
        images: what `hide` makes, perhaps mixed.
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
    return PointSet(pos, feat, F.pad(count.cumsum(0), (1, 0)), SparseGrid(cell, size))


def read_mask(path: str | Path, size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """A mask file of `size` (H, W), that of the upright image: true where any color is not zero.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image, has another size, holds NaN or hides every pixel.
    """
    regular_file(path, "mask file")
    try:
        with open_image(path) as image:
            image = upright(image)
            if image.mode in ("LA", "RGBA", "PA"):
                image = image.convert("L" if image.mode == "LA" else "RGB")  # opacity does not count
            mask = np.array(image)
    except Exception as e:  # Pillow's decoders raise many kinds on damaged bytes
        raise ValueError(f"cannot read mask {path}: {one_line(e)}") from e
    try:
        return as_mask(mask if mask.dtype.kind == "f" else mask != 0, size)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e


def put_mask(image: Image.Image, mask: Bool[Tensor, "H W"]) -> Image.Image:
    """The gray or RGB image with the mask as its alpha channel."""
    image = image.copy()
    image.putalpha(Image.fromarray(mask.numpy().astype(np.uint8) * 255))
    return image


def _read_masked(source: Source, files: list[str | None], mode: str, index: int) -> Image.Image:
    image = decode(source, index, mode)
    if files[index] is None:
        return image  # whole: Pillow adds an alpha channel of 255
    try:
        return put_mask(image, read_mask(files[index], (image.height, image.width)))
    except (ValueError, OSError) as e:
        raise BadMask(str(e)) from e


def with_masks(source: Source, *, root: str | None, mask_root: str, mode: str, strict: bool) -> Source:
    """A source whose images carry the masks of MASK_ROOT/SPLIT/CLASS/NAME.png as alpha; without a file they are whole.

    Args:
        source: image files below `root`.
        mode: 'L' or 'RGB', what the images are without their masks.
        strict: every image must have a mask.
    Raises:
        FileNotFoundError: when there is no folder `mask_root`, none of the images has a mask, or strict and one lacks.
        ValueError: when the images are not files below `root`.
    """
    if not os.path.isdir(mask_root):
        raise FileNotFoundError(f"data.mask_root: no folder {mask_root}; expected masks such as SPLIT/CLASS/NAME.png")
    names = [Path(source.name(i)) for i in range(len(source.targets))]
    if not root or not names[0].is_relative_to(root):
        raise ValueError(
            f"data.mask_root needs images that are files below data.root (data.source folder), not {names[0]}"
        )
    paths = [name.relative_to(root) for name in names]
    files: list[str | None] = [str(Path(mask_root, path).with_suffix(".png")) for path in paths]
    missing = [file for file in files if not os.path.isfile(file)]
    if missing and (strict or len(missing) == len(files)):
        why = "data.strict wants a mask for every image" if strict else "expected the images' own paths"
        raise FileNotFoundError(f"{len(missing)} of {len(files)} images have no mask; no file {missing[0]} ({why})")
    absent = set(missing)
    files = [None if file in absent else file for file in files]
    return Source(source.classes, source.targets, partial(_read_masked, source, files, mode), source.name)
