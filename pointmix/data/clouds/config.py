"""The configuration of point-cloud data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pointmix.utils.ranges import COUNT, FRACTION_BELOW_1, NATURAL, NONNEGATIVE, POSITIVE, SEED, Range, check_fields

OF_SOURCES = ("labels", "input_key", "target_key", "keys", "columns", "surface_points")  # settings of some sources


@dataclass(frozen=True)
class PointDataConfig:
    """Point-cloud data and its augmentation.

    Args:
        source: shapes (generated once, nothing to download), folder (class folders, a CSV file of labels, or files
            train.h5 and test.h5 or the like with labels in root), scanobjectnn or modelnet40 (HDF5 files in root), or a
            source of your own, see `pointmix.data.source`.
        root: folder of the data; for shapes, where to keep them (unset: ~/.cache/pointmix).
        labels: for folder: CSV file in root with columns file, label and, if there is one, split (train, val, test), a
            line a file; files relative to it (unset: labels.csv or data.csv where there is no folder train).
        input_key: column of the files in the CSV file; file also stands for path and filename.
        target_key: column of the labels in the CSV file, or their name in files that hold clouds and labels; label also
            stands for class and the like.
        variant: of ScanObjectNN: obj_only (the object alone), obj_bg (with background points) or pb_t50_rs (boxes
            shifted by up to half, rotated and scaled: the hardest).
        classes: names in the order of the labels (unset: those in the files, else those of the source; files of fewer
            classes, labeled 0 to the last without a gap, name them by number).
        val_fraction: fraction of every class of train held out for model selection, 0 for none (unset: the validation
            split of the data, else 0.1).
        fold: k, n to train on train but for the k-th of n equal parts, and to test on that part instead of the test
            split, for cross-validation; the parts have the same proportions of classes.
        split_seed: seed of the held-out and limited clouds; independent of the run's seed.
        limit: at most this many training clouds, for a quick try.
        points: points of each cloud given to the model; smaller clouds are given whole. null: all points.
        max_points: with points null: at most this many points of each cloud.
        sampling: which points: first (in file order), random (new ones in every epoch) or fps (farthest point
            sampling). Tests with random points see all points of a cloud, in parts, see votes. Unset: the source's or
            first.
        features: features of the points besides their positions, by name, such as rgb, normal, intensity.
        feature_scale: what each feature is divided by (unset: 255 for integer colors, 1 for normals, else the training
            data's standard deviation, which is kept with the run). Colors with 1, 255 or 65535 are divided by what
            their own file tells, so that files of 8 and of 16 bits are alike.
        keys: for folder, files with other names: pos or the name of a feature -> its name in the file.
        columns: for folder, names of the columns without one, in order: those after x, y, z in text files without a
            header and in arrays; rgb and normal are three columns each.
        surface_points: for folder, points on the surface of a mesh, evenly by area; 0 for its vertices.
        nan: clouds with NaN or infinite positions or features: refuse (the cloud is skipped and counted) or drop (its
            other points are used, and a warning says how many are not).
        normalize: none (positions as in the file; double-precision positions far from the origin, such as map
            coordinates, are shifted to it, see `pointmix.ops.recenter`); center (the middle of the bounding box is
            subtracted, along the up axis the lowest point), unit_sphere (around the mean) or unit_cube, for each cloud.
            Unset: the source's or none.
        up: the axis that points up: x, y or z (unset: the source's or z).
        scale: range of the random scaling factor; 1, 1 for off.
        scale_per_axis: draw a factor per axis instead of one for all.
        translate: largest random translation along each axis, in the unit of the positions.
        rotate: largest random rotation angle, in degrees, either way; 180 for any.
        rotate_axis: rotation axis: up (the axis data.up) or any (a random direction).
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
    labels: str | None = None
    input_key: str = "file"
    target_key: str = "label"
    variant: Literal["obj_only", "obj_bg", "pb_t50_rs"] = "pb_t50_rs"
    classes: tuple[str, ...] | None = None
    val_fraction: Annotated[float, FRACTION_BELOW_1] | None = None
    fold: tuple[Annotated[int, COUNT], Annotated[int, COUNT]] | None = None
    split_seed: Annotated[int, SEED] = 0
    limit: Annotated[int, COUNT] | None = None
    points: Annotated[int, COUNT] | None = 1024
    max_points: Annotated[int, COUNT] | None = None
    sampling: Literal["first", "random", "fps"] | None = None
    features: tuple[str, ...] = ()
    feature_scale: dict[str, Annotated[float, POSITIVE]] | None = None
    keys: dict[str, str] | None = None
    columns: tuple[str, ...] = ()
    surface_points: Annotated[int, NATURAL] = 10_000  # as in pointmix.io.mesh
    nan: Literal["refuse", "drop"] = "refuse"
    normalize: Literal["none", "center", "unit_sphere", "unit_cube"] | None = None
    up: Literal["x", "y", "z"] | None = None
    scale: tuple[Annotated[float, POSITIVE], Annotated[float, POSITIVE]] = (2 / 3, 3 / 2)
    scale_per_axis: bool = True
    translate: Annotated[float, NONNEGATIVE] = 0.2
    rotate: Annotated[float, Range(0, 180)] = 0.0
    rotate_axis: Literal["up", "any"] = "up"
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

    @property
    def most_points(self) -> int | None:
        """Points of a cloud that the model is given at once, at most; None for any number."""
        return self.points or self.max_points
