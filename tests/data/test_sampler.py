from __future__ import annotations

import pytest

from pointmix.data.sampler import EpochBatches, PartBatches


def test_an_epoch_is_a_permutation_without_its_rest():
    batches = list(EpochBatches(size=103, batch_size=10, seed=0))
    positions = [position for batch in batches for _, position in batch]
    assert [len(batch) for batch in batches] == [10] * 10
    assert len(set(positions)) == 100 and set(positions) <= set(range(103))
    assert positions != sorted(positions)


def test_order_follows_seed_and_epoch():
    def order(seed, epoch):
        sampler = EpochBatches(size=50, batch_size=10, seed=seed)
        sampler.epoch = epoch
        return [position for batch in sampler for _, position in batch]

    assert order(3, 1) == order(3, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_global_batch_of_one(world):
    one = list(EpochBatches(size=100, batch_size=8, seed=5))
    many = [EpochBatches(size=100, batch_size=8 // world, seed=5, rank=r, world_size=world) for r in range(world)]
    assert [sum(parts, []) for parts in zip(*many, strict=True)] == one


def test_state_goes_on_in_the_middle_and_then_starts_the_next_epoch_whole():
    sampler = EpochBatches(size=64, batch_size=8, seed=1)
    sampler.epoch = 4
    whole = list(sampler)
    other = EpochBatches(size=64, batch_size=8, seed=1)
    other.load_state_dict({**sampler.state_dict(), "batch": 3})
    assert list(other) == whole[3:]
    assert list(other) == whole


def test_another_number_of_processes_goes_on_with_the_same_samples():
    whole = [sum(pair, []) for pair in zip(*[iter(EpochBatches(size=70, batch_size=8, seed=1))] * 2, strict=True)]
    state = EpochBatches(size=70, batch_size=8, seed=1).state_dict() | {"batch": 4}
    parts = [EpochBatches(size=70, batch_size=4, seed=1, rank=rank, world_size=4) for rank in range(4)]
    for part in parts:
        part.load_state_dict(state)
    assert [sum(batches, []) for batches in zip(*parts, strict=True)] == whole[2:]


def test_state_of_other_data_is_refused():
    state = EpochBatches(size=64, batch_size=8, seed=1).state_dict()
    with pytest.raises(ValueError, match="samples 64, but this run has 65"):
        EpochBatches(size=65, batch_size=8, seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="lies after 3 batches of 8, within a batch of this run; expected a multiple"):
        EpochBatches(size=64, batch_size=8, seed=1, world_size=2).load_state_dict(state | {"batch": 3})
    with pytest.raises(ValueError, match="has epoch -1, expected a whole number"):
        EpochBatches(size=64, batch_size=8, seed=1).load_state_dict(state | {"epoch": -1})
    with pytest.raises(ValueError, match="no 'seed'"):
        EpochBatches(size=64, batch_size=8, seed=1).load_state_dict({"samples": 64, "global_batch": 8})


def test_too_few_images_for_one_batch():
    with pytest.raises(ValueError, match="7 training samples do not fill one batch of 4 x 2 processes"):
        EpochBatches(size=7, batch_size=4, seed=0, world_size=2)


@pytest.mark.parametrize("size, world", [(10, 3), (2, 3), (9, 1)])
def test_evaluation_parts_cover_each_image_once(size, world):
    parts = [PartBatches(size=size, batch_size=2, rank=r, world_size=world) for r in range(world)]
    assert sorted(p for part in parts for batch in part for _, p in batch) == list(range(size))
    assert [len(part) for part in parts] == [len(list(part)) for part in parts]
