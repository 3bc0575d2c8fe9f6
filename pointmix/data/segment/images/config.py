"""Settings of labeled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pointmix.data.images.config import IMAGENET_MEAN, IMAGENET_STD
from pointmix.utils.ranges import COUNT, FINITE, FRACTION, FRACTION_ABOVE_0, NATURAL, POSITIVE

IMAGE_DEFAULTS: dict[str, object] = {  # for settings that are None, unless the source has its own
    "in_chans": 3,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "crop_size": (512, 512),
    "scale_range": (0.5, 2.0),
    "cat_max_ratio": 0.75,
    "hflip": 0.5,
    "photometric": True,
}


@dataclass(frozen=True)
class ImageSettings:
    """Settings of labeled images."""

    palette_file: str | None = None
    """Text file for masks in color, a line a class: `R G B name`, or `name,R,G,B`. A color without a name is ignored.
    null: the values of masks are labels."""
    label_starts: tuple[Annotated[int, NATURAL], ...] | None = None
    """For masks that number objects: class k is every value from label_starts[k] up to the next start; smaller values
    are ignored. null: values are labels."""
    in_chans: Annotated[int, COUNT] | None = None
    """Color channels, 1 grayscale or 3 RGB; files are converted. null: as the source says, else 3."""
    mean: tuple[Annotated[float, FINITE], ...] | None = None
    """Mean of every channel, of values in [0, 1], subtracted; null: the source's or ImageNet's."""
    std: tuple[Annotated[float, POSITIVE], ...] | None = None
    """Standard deviation of every channel, divided by; null: the source's or ImageNet's."""
    short_side: Annotated[int, COUNT] | None = None
    """Resize images so that their short side has this many pixels, before training's random scale and in evaluation;
    null keeps their size."""
    size_multiple: Annotated[int, COUNT] = 1
    """In evaluation stretch both sides to multiples of this, as some papers do with 32."""
    crop_size: tuple[Annotated[int, COUNT], Annotated[int, COUNT]] | None = None
    """Rows and columns of random training crops, which are padded where an image is smaller; null: the source's or
    512, 512."""
    scale_range: tuple[Annotated[float, POSITIVE], Annotated[float, POSITIVE]] | None = None
    """Range of the random scaling in training, before the crop; null: the source's or 0.5, 2."""
    cat_max_ratio: Annotated[float, FRACTION_ABOVE_0] | None = None
    """A training crop is drawn again, ten times at most, if one class covers more than this fraction of it; 1: off.
    null: the source's or 0.75."""
    hflip: Annotated[float, FRACTION] | None = None
    """Probability of a horizontal flip in training; null: the source's or 0.5."""
    photometric: bool | None = None
    """Random brightness, contrast, saturation and hue in training; null: the source's or true."""
    keep_ratio: (
        Annotated[float, FRACTION_ABOVE_0]
        | tuple[Annotated[float, FRACTION_ABOVE_0], Annotated[float, FRACTION_ABOVE_0]]
    ) = 1.0
    """Visible fraction of every image, in training and evaluation, or a range to draw it from. Hidden pixels are left
    out of the set, and have no label."""
    mask: Literal["patches", "block", "pixels", "any"] = "patches"
    """Kind of random masks: visible patches or pixels, one hidden block, or any of these."""
    mask_patch: Annotated[int, COUNT] = 16
    """Side of the patches in pixels."""
    rgbd: Literal["image", "lattice", "cloud"] = "image"
    """Sources with depth: image, colors with depth as one more channel; lattice, the same without the pixels that have
    no depth; cloud, the pixels with depth as a metric cloud."""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx, fy, cx, cy of the depth camera in pixels, with the center of the first pixel at 0; needed for rgbd cloud."""
    depth_scale: Annotated[float, POSITIVE] = 1000.0
    """Units of depth files of integers per meter, 1000 for millimeters; floats are meters."""
    depth_mean: Annotated[float, FINITE] = 2.0
    """Subtracted from the depth channel, in meters; pixels without depth are 0 afterwards."""
    depth_std: Annotated[float, POSITIVE] = 1.0
    """The depth channel is divided by this, in meters."""
