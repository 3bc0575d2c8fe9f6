"""Which training images form a batch: wide or high ones, and no more of them than data.max_pixels allows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, Int64

from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.resolve import padded
from pointmix.data.detect.source import DetectSource
from pointmix.data.detect.transforms import fitted
from pointmix.data.grouped_sampler import Group, GroupedBatches
from pointmix.data.images.config import filled
from pointmix.data.sampler import EpochBatches
from pointmix.io.errors import UnreadableSample


def train_batches(
    cfg: DetectDataConfig,
    source: DetectSource,
    indices: Int[np.ndarray, " n"],
    *,
    batch_size: int,
    seed: int,
    rank: int,
    world_size: int,
) -> EpochBatches:
    """The batches of a part of a source as `data.group_by_aspect` and `data.max_pixels` ask for.

    Raises:
        ValueError: the part does not fill a batch, or one image alone has more pixels than `data.max_pixels`.
    """
    place = {"seed": seed, "rank": rank, "world_size": world_size}
    jitter = cfg.crop_size is not None  # then all lattices are alike
    if cfg.max_pixels is None and (jitter or not cfg.group_by_aspect):
        return EpochBatches(size=len(indices), batch_size=batch_size, **place)
    sizes = np.ones((1, 2), dtype=np.int64) if jitter else _sizes(source, indices)
    lattices = np.array([lattice(cfg, (int(rows), int(cols))) for rows, cols in sizes])
    wide = (sizes[:, 0] <= sizes[:, 1]) | (not cfg.group_by_aspect)
    if jitter:
        lattices, wide = lattices.repeat(len(indices), 0), wide.repeat(len(indices))
    if cfg.max_pixels is None:
        if wide.all() or not wide.any():
            return EpochBatches(size=len(indices), batch_size=batch_size, **place)
        chains = [[Group(np.flatnonzero(chosen), batch_size)] for chosen in (wide, ~wide)]
        return GroupedBatches(chains, rest=batch_size, **place)
    if (largest := int(lattices.prod(1).max())) > cfg.max_pixels:
        rows, cols = lattices[lattices.prod(1).argmax()]
        raise ValueError(
            f"data.max_pixels {cfg.max_pixels} is less than one image may have, {rows} x {cols} = {largest}; expected "
            "that at least"
        )
    chains = [_chain(lattices, chosen, batch_size, cfg.max_pixels) for chosen in (wide, ~wide)]
    rest = min(batch_size, max(1, cfg.max_pixels // int(lattices.max(0).prod())))
    return GroupedBatches(chains, rest=rest, **place)


def lattice(cfg: DetectDataConfig, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the largest lattice that a training image of H, W may need alone, with padding."""
    if cfg.crop_size is None:
        sides = cfg.train_short_sides or (filled(cfg.short_side),)
        size = fitted(size, max(sides), filled(cfg.max_side))
    else:
        size = cfg.crop_size[0], cfg.crop_size[1]
    return padded(size[0], cfg.size_multiple), padded(size[1], cfg.size_multiple)


def _chain(
    lattices: Int64[np.ndarray, "n 2"], chosen: Bool[np.ndarray, " n"], batch_size: int, max_pixels: int
) -> list[Group]:
    """Groups from small images to large ones. The batch size of a group is what its and all smaller images allow."""
    fit = np.minimum(batch_size, max_pixels // lattices.prod(1))  # (n,) images of this size in a batch
    groups = []
    for count in np.unique(fit[chosen])[::-1]:
        members = chosen & (fit == count)
        up_to_here = chosen & (fit >= count)
        bound = int(lattices[up_to_here].max(0).prod())
        groups.append(Group(np.flatnonzero(members), min(batch_size, max(1, max_pixels // bound))))
    return groups


def _sizes(source: DetectSource, indices: Int[np.ndarray, " n"]) -> Int64[np.ndarray, "n 2"]:
    """H, W of each image; 1, 1 for one that cannot be read, which another image of any size replaces in its batch."""
    sizes = np.ones((len(indices), 2), dtype=np.int64)
    for position, index in enumerate(indices.tolist()):
        try:
            sizes[position] = source.size(index)
        except UnreadableSample:
            continue
    return sizes
