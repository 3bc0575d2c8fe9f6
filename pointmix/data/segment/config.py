"""The configuration of data with a label for every pixel or point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pointmix.data.segment.clouds.config import CloudSettings
from pointmix.data.segment.images.config import ImageSettings
from pointmix.utils.ranges import COUNT, FRACTION_BELOW_1, NATURAL, SEED, check_fields, hints


@dataclass(frozen=True)
class CommonSettings:
    """Settings of images and clouds alike."""

    source: str = "scenes"
    """Where the samples come from: scenes (digits on a canvas, nothing to download), scenes3d (shapes on a floor),
    folder, ade20k, cityscapes, voc, camvid, rgbd, shapenetpart, s3dis, scannet, files (labeled .ply, .las, .npz), or a
    source of your own, see pointmix.data.segment.source."""
    root: str | None = None
    """Folder of the data."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of the labels; null: those of the source."""
    reduce_zero_label: bool | None = None
    """Ignore label 0 of the files and count classes from label 1; null: as the source says, else false."""
    ignore_index: Annotated[int, NATURAL] | None = None
    """Label of the files that is ignored, where no label map, label_starts or palette file says it; null: the source's
    or 255."""
    label_map: dict[int, int] | None = None
    """Label of the files -> class, -1 to ignore it; labels that are not named are ignored. null: labels are classes."""
    val_fraction: Annotated[float, FRACTION_BELOW_1] | None = None
    """Fraction of train held out for model selection, 0 for none; null: 0.1, and none if the source has a validation
    split of its own, which is then used."""
    split_seed: Annotated[int, SEED] = 0
    """Seed of the held-out and limited samples; independent of the run's seed."""
    limit: Annotated[int, COUNT] | None = None
    """At most this many training samples, for a quick try."""
    repeat: Annotated[int, COUNT] | None = None
    """Crops of each training sample an epoch; null: the source's or 1."""
    workers: Annotated[int, NATURAL] = 0
    """Processes that load samples; 0 for the training process."""
    cache: bool = False
    """Read every sample once and keep it in memory, for sets that fit."""
    strict: bool = False
    """Stop at a damaged sample; otherwise it is skipped and counted."""


@dataclass(frozen=True)
class SegmentDataConfig(CommonSettings, ImageSettings, CloudSettings):
    """Images or clouds with a label for every pixel or point, and their augmentation."""

    def __post_init__(self) -> None:
        check_fields(self, "data.")


# The types of flags are read from __init__, whose annotations are looked up here, where the bases' names are unknown.
SegmentDataConfig.__init__.__annotations__.update(hints(SegmentDataConfig))
