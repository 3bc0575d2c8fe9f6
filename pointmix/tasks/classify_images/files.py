"""Image files as inputs of a network, the way evaluation reads them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from pointmix.data.images.config import DataConfig, filled
from pointmix.data.images.mask_files import put_mask
from pointmix.data.images.normalize import join_bytes
from pointmix.data.images.partial import MaskedTransform, partial_points
from pointmix.io import read_image, read_mask
from pointmix.pointset import PointSet
from pointmix.utils.messages import is_out_of_memory


def whole_image(image: Image.Image, cfg: DataConfig) -> Float[Tensor, "C S S"]:
    """The image resized, cropped and normalized."""
    from pointmix.data.images.transforms import eval_transform

    return _transformed(eval_transform(cfg), image, cfg)[0]


def masked_image(
    image: Image.Image, mask: Bool[Tensor, "H W"], cfg: DataConfig, *, coord_mode: str = "inclusive"
) -> PointSet:
    """The visible pixels of the image, resized, cropped and normalized.

    Args:
        coord_mode: the network's, see `PointSet.from_image`.

    Raises:
        ValueError: the crop has no visible pixel.
    """
    from pointmix.data.images.transforms import eval_transform

    transform = MaskedTransform(eval_transform(cfg).transforms, side=None)
    return partial_points(_transformed(transform, put_mask(image, mask), cfg), coord_mode=coord_mode)


def reader(model: nn.Module, name: str, cfg: DataConfig, args: Namespace) -> Callable[[str], Tensor | PointSet]:
    """Path -> (1, C, S, S), or with args.mask the visible pixels.

    Args:
        name: what to call the network.

    Raises:
        ValueError: there is a mask, and the network takes whole images only.
        FileNotFoundError: there is no such mask.
    """
    if args.mask and not hasattr(model, "explain"):
        from pointmix.models import list_models

        ours = ", ".join(list_models())
        raise ValueError(f"--mask needs a model of points ({ours}); {name} takes whole images only")
    if args.mask and not Path(args.mask).is_file():
        raise FileNotFoundError(f"no mask file {args.mask}")
    mode = getattr(model, "coord_mode", "inclusive")

    def read(path: str) -> Tensor | PointSet:
        image = read_image(path, filled(cfg.in_chans))
        if not args.mask:
            return whole_image(image, cfg)[None]
        try:
            return masked_image(image, read_mask(args.mask, (image.height, image.width)), cfg, coord_mode=mode)
        except ValueError as e:
            raise ValueError(f"{path} with mask: {e}") from e

    return read


def _transformed(transform: Callable[[Image.Image], Any], image: Image.Image, cfg: DataConfig) -> Tensor:
    try:
        return join_bytes([transform(image)], mean=filled(cfg.mean), std=filled(cfg.std)).to("cpu")
    except (MemoryError, RuntimeError) as e:
        if not is_out_of_memory(e):
            raise
        raise ValueError(f"an image of {cfg.img_size}x{cfg.img_size} (data.img_size) does not fit into memory") from e
