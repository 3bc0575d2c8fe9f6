"""Point-cloud classification data: one configuration in, loaders for train, validation and test out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pointmix.data.clouds.hdf5 import FEATURES, VARIANTS, CloudFiles, open_modelnet40, open_scanobjectnn
from pointmix.data.clouds.shapes import shapes_root
from pointmix.data.images.build import hold_back
from pointmix.data.images.folder import check_same_classes
from pointmix.data.loader import BatchLoader, Failure, ImageSet
from pointmix.data.sampler import EpochBatches, PartBatches
from pointmix.data.transforms import points as T
from pointmix.ops.ragged import counts_to_ptr
from pointmix.ops.sampling import farthest_point_sampling, random_sampling
from pointmix.pointset import PointSet
from pointmix.utils.ranges import COUNT, NATURAL, NONNEGATIVE, PART, POSITIVE, SEED, Range, check_fields

CHOICES = {
    "source": ("shapes", "scanobjectnn", "modelnet40"),
    "variant": tuple(VARIANTS),
    "sampling": ("first", "random", "fps"),
    "features": ("none", *FEATURES),
    "normalize": ("none", "unit_sphere", "unit_cube"),
    "rotate_axis": T.AXES,
}


@dataclass(frozen=True)
class PointDataConfig:
    """Where the clouds are and what is done to them.

    Args:
        source: shapes (generated once, nothing to download), scanobjectnn or modelnet40 (HDF5 files below root).
        root: folder of the data; for shapes, where they are kept (unset: ~/.cache/pointmix).
        variant: which form of ScanObjectNN: obj_only (the object alone), obj_bg (with the points around it) or
            pb_t50_rs (boxes moved by half, turned and scaled: the hardest).
        classes: names in the order of the labels (unset: those that the files give, else those of the source; files of
            fewer classes, labeled 0 to the last without a gap, name them by number).
        val_fraction: share of every class of train held back to select models on, 0 for none.
        split_seed: decides which clouds are held back or kept by limit; the run's own seed does not.
        limit: at most this many training clouds, for a quick try.
        points: points of each cloud given to the model.
        sampling: which of a cloud's points: first (in the order of the file), random (others in every epoch, the same
            in every evaluation) or fps (farthest points).
        features: what the points carry besides their positions: none, rgb (in [0, 1]) or normal, where the files have
            it.
        normalize: none (positions as they are in the file; those in double precision far from the origin, such as map
            coordinates, are moved to it, see `pointmix.ops.recenter`), unit_sphere or unit_cube, for each cloud.
        scale: range of the random factor of the positions; 1, 1 for off.
        scale_per_axis: draw a factor for each axis, instead of one for all.
        shift: largest random shift along each axis, in the unit of the positions.
        rotate: largest random angle, in degrees, either way; 180 for any.
        rotate_axis: what to turn about: x, y, z or any (a random direction); objects stand on y in these sets.
        jitter: deviation of the random shift of every single point, in the unit of the positions.
        jitter_clip: largest such shift.
        drop: largest share of the points left out; the share is drawn anew for each cloud, so that their sizes differ.
        shuffle: put the points of each cloud in random order.
        workers: processes that load clouds; 0 loads in the training process.
        cache: read the files once and keep them in memory, for sets that fit; helps most with compressed files.
        strict: stop at a damaged cloud (unreadable, or NaN in it); otherwise it is skipped and counted.
    """

    source: str = "shapes"
    root: str | None = None
    variant: str = "pb_t50_rs"
    classes: tuple[str, ...] | None = None
    val_fraction: Annotated[float, PART] = 0.1
    split_seed: Annotated[int, SEED] = 0
    limit: Annotated[int, COUNT] | None = None
    points: Annotated[int, COUNT] = 1024
    sampling: str = "first"
    features: str = "none"
    normalize: str = "none"
    scale: tuple[Annotated[float, POSITIVE], Annotated[float, POSITIVE]] = (2 / 3, 3 / 2)
    scale_per_axis: bool = True
    shift: Annotated[float, NONNEGATIVE] = 0.2
    rotate: Annotated[float, Range(0, 180)] = 0.0
    rotate_axis: str = "y"
    jitter: Annotated[float, NONNEGATIVE] = 0.0
    jitter_clip: Annotated[float, NONNEGATIVE] = 0.05
    drop: Annotated[float, PART] = 0.0
    shuffle: bool = True
    workers: Annotated[int, NATURAL] = 0
    cache: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "data.")


def resolve(cfg: PointDataConfig) -> PointDataConfig:
    """Check the choices, and the settings that depend on each other.

    Raises:
        ValueError: naming the setting, its value and what was expected.
    """
    for key, expected in CHOICES.items():
        if getattr(cfg, key) not in expected:
            raise ValueError(f"data.{key} {getattr(cfg, key)!r}: expected one of {', '.join(expected)}")
    if cfg.source != "shapes" and not cfg.root:
        raise ValueError(f"data.root is not set; expected the folder of {cfg.source}, see datasets/{cfg.source}")
    low, high = cfg.scale
    if low > high:
        raise ValueError(f"data.scale {low}, {high}: expected two positive numbers, the smaller first")
    if cfg.source == "shapes" and cfg.classes is not None:
        raise ValueError("data.classes is set, but data.source is shapes, which have names of their own")
    return cfg


@dataclass(frozen=True)
class PointSplits:
    """Loaders over (PointSet of B clouds, targets int64 (B,)), and what a model and a report need to know.

    Args:
        train: shuffled and augmented, the rest that fills no batch dropped; has state_dict() and load_state_dict(), and
            forgets nothing in mid-epoch.
        val: the clouds held back from train, or None where nothing was.
        test: the test split. Every process sees its own part of val and test, and no cloud twice.
        classes: names, in the order of the labels.
        config: the configuration as it was checked.
    """

    train: BatchLoader
    val: BatchLoader | None
    test: BatchLoader
    classes: list[str]
    config: PointDataConfig

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train)

    @property
    def in_chans(self) -> int:
        """Feature channels: 0 for bare positions."""
        return FEATURES.get(self.config.features, 0)

    @property
    def model_kwargs(self) -> dict[str, Any]:
        """What `create_model` must be told about the data."""
        return {"num_classes": len(self.classes), "in_chans": self.in_chans, "coord_dims": 3}

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of the next pass over train; call it before every epoch."""
        self.train.set_epoch(epoch)

    def skipped(self) -> list[Failure]:
        """(cloud, reason) of every damaged cloud that this process has met so far."""
        loaders = [loader for loader in (self.train, self.val, self.test) if loader is not None]
        return sorted({failure for loader in loaders for failure in loader.failed.items()})


class CloudSet(ImageSet):
    """Samples of a part of some files of clouds, by (epoch, position); see `ImageSet`."""

    what = "clouds"

    def __init__(self, *, source: CloudFiles, indices: Int[np.ndarray, " n"], transform: Any, seed: int | None) -> None:
        super().__init__(source=source, indices=indices, mode="", transform=transform, seed=seed)

    def read(self, index: int) -> PointSet:
        return self.source.read(index)


def collate_clouds(samples: list[tuple[PointSet | None, int, list[Failure]]]) -> tuple[Any, Tensor, list[Failure]]:
    """Samples -> one PointSet of the clouds that could be read, their targets (B,), and the failures."""
    failed = [failure for _, _, failures in samples for failure in failures]
    good = [(points, target) for points, target, _ in samples if points is not None]
    targets = torch.tensor([target for _, target in good], dtype=torch.int64)
    if not good:
        return torch.empty(0), targets, failed
    clouds = [points for points, _ in good]
    ptr = counts_to_ptr(torch.tensor([len(points.pos) for points in clouds]))
    pos, feat = (torch.cat([getattr(points, key) for points in clouds]) for key in ("pos", "feat"))
    return PointSet(pos, feat, ptr, clouds[0].layout), targets, failed


def thin_out(points: PointSet, *, num_samples: int, how: str) -> PointSet:
    """`number` points of a cloud: random ones, or the farthest from one another ("fps")."""
    if how == "random":
        index, _ = random_sampling(points.ptr, num_samples, seed=int(torch.randint(2**31, ())))
    else:
        index, _ = farthest_point_sampling(points.pos, points.ptr, num_samples)
    return PointSet(points.pos[index], points.feat[index], torch.tensor([0, len(index)]))


def in_single(points: PointSet) -> PointSet:
    """Positions and features as float32, only now that nothing needs more digits; see `PointSet.in_type`."""
    return points.in_type(torch.float32)


def eval_transform(cfg: PointDataConfig, *, keep: float = 1.0) -> T.Transform:
    """What every cloud goes through: fewer points, normalization, single precision; then all but the share `keep` may
    get lost."""
    lost = [] if keep == 1 else [partial(T.drop, share=1 - keep)]
    return T.compose(_fixed_steps(cfg) + lost)


def train_transform(cfg: PointDataConfig) -> T.Transform:
    """The same and the augmentation: drop, rotate, scale, shift, jitter, shuffle, each where it is switched on."""
    steps = _fixed_steps(cfg)
    normals = (0, 3) if cfg.features == "normal" else None
    if cfg.drop:
        steps.append(partial(T.drop, share=(0.0, cfg.drop)))
    if cfg.rotate:
        steps.append(partial(T.rotate, degrees=cfg.rotate, axis=cfg.rotate_axis, vectors=normals))
    if tuple(cfg.scale) != (1, 1):
        steps.append(partial(T.scale, factor=tuple(cfg.scale), per_axis=cfg.scale_per_axis, normals=normals))
    if cfg.shift:
        steps.append(partial(T.shift, most=cfg.shift))
    if cfg.jitter:
        steps.append(partial(T.jitter, sigma=cfg.jitter, clip=cfg.jitter_clip))
    if cfg.shuffle:
        steps.append(T.shuffle)
    return T.compose(steps)


def _fixed_steps(cfg: PointDataConfig) -> list[T.Transform]:
    steps: list[T.Transform] = []
    if cfg.sampling != "first":  # the first ones are all that was read
        steps.append(partial(thin_out, num_samples=cfg.points, how=cfg.sampling))
    if cfg.normalize != "none":
        steps.append({"unit_sphere": T.unit_sphere, "unit_cube": T.unit_cube}[cfg.normalize])
    return [*steps, in_single]


def _open(cfg: PointDataConfig, split: str) -> CloudFiles:
    first = cfg.points if cfg.sampling == "first" else None
    common = {"split": split, "features": cfg.features, "classes": cfg.classes, "first": first, "cache": cfg.cache}
    if cfg.source == "modelnet40":
        files = open_modelnet40(cfg.root, **common)
    elif cfg.source == "shapes":
        files = open_scanobjectnn(shapes_root(cfg.root), variant="obj_bg", **common)
    else:
        files = open_scanobjectnn(cfg.root, variant=cfg.variant, **common)
    if cfg.points > files.points:
        raise ValueError(f"data.points {cfg.points}: the clouds of {files.name(0)[:-3]} have {files.points} points")
    return files


def build_points(
    cfg: PointDataConfig, *, batch_size: int, eval_batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> PointSplits:
    """Open the data and make the loaders.

    Args:
        cfg: what to load.
        batch_size: training clouds a step and process; processes x batch_size make the global batch.
        eval_batch_size: clouds a step and process in evaluation.
        seed: of the order and the augmentation, not negative.
        rank, world_size: this process and how many there are.
    Raises:
        FileNotFoundError: for data that is not there.
        ValueError: for a setting out of range, a file without the keys or cut off, labels out of range, splits with
            different classes, or fewer clouds than fill a batch.
    """
    if batch_size < 1 or eval_batch_size < 1 or seed < 0:
        raise ValueError(f"batch sizes {batch_size}, {eval_batch_size} and seed {seed}: expected at least 1, 1 and 0")
    cfg = resolve(cfg)
    train = _open(cfg, "train")
    test = _open(dataclasses.replace(cfg, classes=tuple(train.classes)), "test")  # it may miss some of them
    if cfg.classes is None and train.written and test.written:
        check_same_classes(train.written, test.written, "test")
    kept, held = hold_back(train.targets, fraction=cfg.val_fraction, seed=cfg.split_seed)
    if cfg.limit:
        kept = np.sort(np.random.default_rng(cfg.split_seed).permutation(kept)[: cfg.limit])
    if len(kept) < batch_size * world_size:
        raise ValueError(
            f"{len(kept)} training clouds do not fill one batch of {batch_size} x {world_size} processes; "
            "use a smaller batch size"
        )
    place = {"rank": rank, "world_size": world_size}
    order = EpochBatches(size=len(kept), batch_size=batch_size, seed=seed, **place)

    def part(source: CloudFiles, indices: Int[np.ndarray, " n"]) -> BatchLoader:
        return _loader(cfg, source, indices, PartBatches(size=len(indices), batch_size=eval_batch_size, **place))

    return PointSplits(
        train=_loader(cfg, train, kept, order, seed=seed),
        val=part(train, held) if len(held) else None,
        test=part(test, np.arange(len(test.targets))),
        classes=train.classes,
        config=cfg,
    )


def build_points_test(cfg: PointDataConfig, *, batch_size: int, keep: float = 1.0) -> tuple[BatchLoader, list[str]]:
    """The test split alone, without a look at train: its loader and the names of its classes.

    Files of fewer classes than the source has may miss some of them in their test split: give `classes` then.

    Args:
        keep: share of the points of each cloud that is left, in (0, 1]. Which ones is random, but the same in every
            evaluation; those of a smaller share are among those of a larger one.

    Raises:
        FileNotFoundError: for data that is not there.
        ValueError: as for `build_points`, and for a share that leaves no point.
    """
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size}: expected at least 1")
    cfg = resolve(cfg)
    check_keep(keep, cfg)
    test = _open(cfg, "test")
    size = len(test.targets)
    return _loader(cfg, test, np.arange(size), PartBatches(size=size, batch_size=batch_size), keep=keep), test.classes


def check_keep(keep: float, cfg: PointDataConfig) -> None:
    """Refuse a share of points that is none, or leaves none."""
    if not 0 < keep <= 1:
        raise ValueError(f"keep {keep}: expected a share of the points above 0, up to 1")
    if keep * cfg.points < 1:
        raise ValueError(f"keep {keep}: leaves none of {cfg.points} points, expected at least {1 / cfg.points:.2g}")


def _loader(
    cfg: PointDataConfig,
    source: CloudFiles,
    indices: Int[np.ndarray, " n"],
    batches: EpochBatches | PartBatches,
    seed: int | None = None,
    keep: float = 1.0,
) -> BatchLoader:
    """A loader over a part of a source; for training with a seed, else for evaluation."""
    transform = eval_transform(cfg, keep=keep) if seed is None else train_transform(cfg)
    clouds = CloudSet(source=source, indices=indices, transform=transform, seed=seed)
    return BatchLoader(dataset=clouds, batches=batches, workers=cfg.workers, strict=cfg.strict, collate=collate_clouds)
