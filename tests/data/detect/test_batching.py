from __future__ import annotations

import numpy as np
import pytest

from pointmix.data.detect.batching import lattice, train_batches
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.resolve import resolve
from pointmix.data.grouped_sampler import GroupedBatches
from pointmix.data.sampler import EpochBatches
from pointmix.io.errors import UnreadableSample
from tests.data.detect import toy

SIZES = [(480, 640)] * 20 + [(640, 480)] * 11 + [(400, 1000)] * 9 + [(500, 500)] * 5  # rows, columns


class Sized(toy.Toy):
    def __init__(self, sizes):
        super().__init__("train")
        self.sizes = sizes

    def size(self, index):
        if self.sizes[index] is None:
            raise UnreadableSample("torn")
        return self.sizes[index]


def batches(sizes=SIZES, batch_size=4, world_size=1, rank=0, **settings):
    cfg = resolve(DetectDataConfig(source="toy_objects", **{"short_side": 800, "max_side": 1333} | settings))
    place = {"batch_size": batch_size, "seed": 0, "rank": rank, "world_size": world_size}
    return train_batches(cfg, Sized(sizes), np.arange(len(sizes)), **place), cfg


def pixels(batch, cfg, sizes=SIZES):
    """Of the padded lattice of a batch, all images at their largest."""
    sides = [lattice(cfg, sizes[position]) for _, position in batch]
    return len(batch) * max(rows for rows, _ in sides) * max(cols for _, cols in sides)


def test_the_lattice_that_an_image_needs():
    _, cfg = batches()
    assert [lattice(cfg, size) for size in ((480, 640), (640, 480), (400, 1000), (500, 500))] == [
        (800, 1088),  # 1066.7
        (1088, 800),
        (544, 1344),  # 533.2 x 1333
        (800, 800),
    ]
    _, cfg = batches(train_short_sides=(480, 640), size_multiple=1)
    assert lattice(cfg, (480, 640)) == (640, 853)
    _, cfg = batches(jitter_scale=(0.1, 2), crop_size=(100, 200))
    assert lattice(cfg, (480, 640)) == (128, 224)


@pytest.mark.parametrize("world", [1, 2])
def test_wide_and_high_images_are_apart(world):
    samplers = [batches(world_size=world, rank=rank)[0] for rank in range(world)]
    found = [list(sampler) for sampler in samplers]
    mixed = [batch for batch in sum(found, []) if len({SIZES[p][0] <= SIZES[p][1] for _, p in batch}) > 1]
    assert isinstance(samplers[0], GroupedBatches) and len(mixed) <= world
    assert {len(part) for part in found} == {len(SIZES) // (4 * world)}


@pytest.mark.parametrize("settings", [{"group_by_aspect": False}, {"jitter_scale": (0.5, 1), "crop_size": (64, 64)}])
def test_one_group_has_the_plain_order(settings):
    sampler, _ = batches(**settings)
    assert type(sampler) is EpochBatches and list(sampler) == list(EpochBatches(size=45, batch_size=4, seed=0))
    alike, _ = batches(sizes=[(5, 6), (5, 5), (1, 2)] * 3)
    assert type(alike) is EpochBatches


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("limit", [1_100_000, 2_000_000, 3_000_000])
@pytest.mark.parametrize("group", [True, False])
def test_no_batch_has_more_pixels_than_allowed(world, limit, group):
    found = []
    for rank in range(world):
        sampler, cfg = batches(max_pixels=limit, group_by_aspect=group, world_size=world, rank=rank)
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler)
    every = sum(found, [])
    assert max(pixels(batch, cfg) for batch in every) <= limit
    assert len({key for batch in every for key in batch}) == sum(map(len, every)) >= len(SIZES) - 4 * world
    if group:  # wide and high images together need larger lattices
        assert max(len(batch) for batch in every) >= {1_100_000: 1, 2_000_000: 2, 3_000_000: 3}[limit]


def test_crops_count_as_they_are():
    sampler, cfg = batches(max_pixels=100_000, jitter_scale=(0.1, 2), crop_size=(100, 200))
    assert {len(batch) for batch in sampler} == {3} and len(sampler) == 15


def test_a_limit_below_one_image():
    with pytest.raises(
        ValueError, match=r"data.max_pixels 800000 is less than one image may have, 800 x 1088 = 870400"
    ):
        batches(max_pixels=800_000)


def test_an_image_whose_size_cannot_be_read_is_left_to_its_batch():
    sampler, _ = batches(sizes=[None, (3, 4), (4, 3), (4, 3), (3, 4), None], batch_size=2)
    assert len(list(sampler)) == 3
