"""The configuration of point-cloud data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pointmix.utils.ranges import COUNT, FRACTION_BELOW_1, NATURAL, NONNEGATIVE, POSITIVE, SEED, Range, check_fields

VARIANTS = ("obj_only", "obj_bg", "pb_t50_rs")  # of ScanObjectNN
FEATURE_CHANNELS = {"none": 0, "rgb": 3, "normal": 3}
AXES = ("x", "y", "z", "any")
CHOICES = {
    "variant": VARIANTS,
    "sampling": ("first", "random", "fps"),
    "features": tuple(FEATURE_CHANNELS),
    "normalize": ("none", "unit_sphere", "unit_cube"),
    "rotate_axis": AXES,
}


@dataclass(frozen=True)
class PointDataConfig:
    """Point-cloud data and its augmentation.

    Args:
        source: shapes (generated once, nothing to download), scanobjectnn or modelnet40 (HDF5 files in root), or a
            source of your own, see `pointmix.data.source`.
        root: folder of the data; for shapes, where to keep them (unset: ~/.cache/pointmix).
        variant: of ScanObjectNN: obj_only (the object alone), obj_bg (with background points) or pb_t50_rs (boxes
            shifted by up to half, rotated and scaled: the hardest).
        classes: names in the order of the labels (unset: those in the files, else those of the source; files of fewer
            classes, labeled 0 to the last without a gap, name them by number).
        val_fraction: fraction of every class of train held out for model selection, 0 for none.
        split_seed: seed of the held-out and limited clouds; independent of the run's seed.
        limit: at most this many training clouds, for a quick try.
        points: points of each cloud given to the model.
        sampling: which points: first (in file order), random (new ones in every epoch, the same ones in every
            evaluation) or fps (farthest point sampling).
        features: point features besides the positions: none, rgb (in [0, 1]) or normal, if the files have them.
        normalize: none (positions as in the file; double-precision positions far from the origin, such as map
            coordinates, are shifted to it, see `pointmix.ops.recenter`), unit_sphere or unit_cube, for each cloud.
        scale: range of the random scaling factor; 1, 1 for off.
        scale_per_axis: draw a factor per axis instead of one for all.
        translate: largest random translation along each axis, in the unit of the positions.
        rotate: largest random rotation angle, in degrees, either way; 180 for any.
        rotate_axis: rotation axis: x, y, z or any (a random direction); y is up in these data sets.
        jitter: standard deviation of the random displacement of each point, in the unit of the positions.
        jitter_clip: largest such displacement along an axis.
        dropout_ratio: largest fraction of points dropped; drawn anew for each cloud, so that cloud sizes differ.
        shuffle: put the points of each cloud in random order.
        balanced: draw training clouds so that all classes occur equally often in an epoch, which is as long as before;
            those of small classes several times, augmented anew.
        workers: processes that load clouds; 0 for the training process.
        cache: read the files once and keep them in memory, for sets that fit; most useful for compressed files.
        strict: stop at a damaged cloud (unreadable, or with NaN); otherwise it is skipped and counted.
    """

    source: str = "shapes"
    root: str | None = None
    variant: str = "pb_t50_rs"
    classes: tuple[str, ...] | None = None
    val_fraction: Annotated[float, FRACTION_BELOW_1] = 0.1
    split_seed: Annotated[int, SEED] = 0
    limit: Annotated[int, COUNT] | None = None
    points: Annotated[int, COUNT] = 1024
    sampling: str = "first"
    features: str = "none"
    normalize: str = "none"
    scale: tuple[Annotated[float, POSITIVE], Annotated[float, POSITIVE]] = (2 / 3, 3 / 2)
    scale_per_axis: bool = True
    translate: Annotated[float, NONNEGATIVE] = 0.2
    rotate: Annotated[float, Range(0, 180)] = 0.0
    rotate_axis: str = "y"
    jitter: Annotated[float, NONNEGATIVE] = 0.0
    jitter_clip: Annotated[float, NONNEGATIVE] = 0.05
    dropout_ratio: Annotated[float, FRACTION_BELOW_1] = 0.0
    shuffle: bool = True
    balanced: bool = False
    workers: Annotated[int, NATURAL] = 0
    cache: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "data.")
