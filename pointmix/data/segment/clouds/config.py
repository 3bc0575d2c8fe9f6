"""Settings of labeled clouds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pointmix.utils.ranges import COUNT, FRACTION, FRACTION_BELOW_1, NONNEGATIVE, POSITIVE, Range


@dataclass(frozen=True)
class CloudSettings:
    """Settings of labeled clouds."""

    train_files: tuple[str, ...] | None = None
    """Source files: patterns of the training files below root, such as 0382*.npz, folders there, or names of .txt files
    there with a path a line; null: the folder train."""
    val_files: tuple[str, ...] | None = None
    """The same for validation; null: the folder val, if there is one."""
    test_files: tuple[str, ...] | None = None
    """The same for test; null: the folder test."""
    label_name: str | None = None
    """Source files: name of the labels in the files; null: label, segment, class, classification, scalar_Label and
    the like, the first that is found."""
    keys: dict[str, str] | None = None
    """Source files, for other names in the files: pos or the name of a feature -> its name in the file."""
    columns: tuple[str, ...] | None = None
    """Source files: names of the columns without one, in order, label among them: those after x, y, z in text files
    without a header and in arrays; rgb and normal are three columns each."""
    test_area: Annotated[int, Range(1, 6, whole=True)] | None = None
    """Source s3dis: the area that is tested on, the others are trained on; null: 5."""
    features: tuple[str, ...] | None = None
    """Features of the points beside their positions, by name, such as rgb, normal, intensity; null: the source's."""
    feature_scale: dict[str, Annotated[float, POSITIVE]] | None = None
    """What each feature is divided by; null: 255 for integer colors, 1 for normals, else the training data's standard
    deviation, which is kept with the run."""
    nan: Literal["refuse", "drop"] = "refuse"
    """Clouds with NaN or infinite positions or features: refuse (the cloud is skipped and counted) or drop (its other
    points are used, and a warning says how many are not; points whose label is NaN are ignored)."""
    normalize: Literal["none", "center", "unit_sphere"] | None = None
    """Of a crop or an object: none; center, subtract the middle of its bounding box (along the up axis, its lowest
    point); unit_sphere, also divide by its largest distance from there. null: the source's or center."""
    up: Literal["x", "y", "z"] | None = None
    """The axis that points up; null: the source's or z."""
    grid_size: Annotated[float, POSITIVE] | None = None
    """Side of the cells of grid sampling, in the unit of the positions: one point a cell in training; in evaluation
    all points of a cell get a label. null: all points."""
    crop: Literal["none", "sphere", "box"] | None = None
    """Part of a scene that is a training sample; null: the source's or none, the whole cloud."""
    crop_extent: Annotated[float, POSITIVE] | None = None
    """Radius of spheres, or side of boxes (columns along the up axis), in the unit of the positions."""
    max_points: Annotated[int, COUNT] | None = None
    """At most this many points of a training sample: of a crop the ones nearest to its middle, of a whole cloud random
    ones. In evaluation all points get a label."""
    min_points: Annotated[int, COUNT] = 16
    """Training crops of fewer points, or without a label, are drawn again, ten times at most; then the sample is
    skipped and counted."""
    rotate: Annotated[float, Range(0, 180)] | None = None
    """Largest random rotation about the up axis in training, in degrees either way; null: the source's or 180."""
    tilt: Annotated[float, Range(0, 90)] = 0.0
    """Largest random rotation about a horizontal axis in training, in degrees either way: slopes of the ground."""
    flip: Annotated[float, FRACTION] = 0.5
    """Probability of mirroring each horizontal axis in training."""
    scale: tuple[Annotated[float, POSITIVE], Annotated[float, POSITIVE]] = (0.9, 1.1)
    """Range of the random scaling factor in training."""
    jitter: Annotated[float, NONNEGATIVE] = 0.0
    """Standard deviation of the random displacement of each point in training, in the unit of the normalized
    positions."""
    dropout_ratio: Annotated[float, FRACTION_BELOW_1] = 0.0
    """Largest fraction of points dropped in training, drawn anew for each sample."""
    feature_dropout: Annotated[float, FRACTION] = 0.0
    """Probability that all features of a training sample are set to zero."""
