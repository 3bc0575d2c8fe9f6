from __future__ import annotations

import numpy as np
import pytest

from pointmix.data.grouped_sampler import Group, GroupedBatches
from pointmix.data.sampler import EpochBatches

SMALL, LARGE, HIGH = np.arange(0, 41), np.arange(41, 60), np.arange(60, 83)  # 41 + 19 + 23 = 83 samples


def batches(rank=0, world=1, seed=5, scale=1):
    chains = [[Group(SMALL, 8 // scale), Group(LARGE, 4 // scale)], [Group(HIGH, 8 // scale)]]
    return GroupedBatches(chains, rest=4 // scale, seed=seed, rank=rank, world_size=world)


def positions(sampler):
    return [[position for _, position in batch] for batch in sampler]


def test_batches_are_of_one_group_but_for_what_is_left_over():
    found = positions(batches())
    whole = [set(batch) for batch in found if len(batch) == 8]
    assert len(whole) == 5 + 2 and all(batch <= set(SMALL) or batch <= set(HIGH) for batch in whole)
    fours = [set(batch) for batch in found if len(batch) == 4]
    assert sum(batch <= set(SMALL) | set(LARGE) for batch in fours) == 5  # one of SMALL goes on to LARGE
    assert len(fours) == 5 + 1  # 0 of the first chain and 7 of the second are left
    assert len(sum(found, [])) == len(set(sum(found, []))) == 80


def test_every_epoch_has_as_many_batches_and_drops_other_samples():
    sampler, dropped, orders = batches(), set(), set()
    for epoch in range(30):
        sampler.epoch = epoch
        found = positions(sampler)
        assert len(found) == len(sampler) == 13
        dropped |= set(range(83)) - set(sum(found, []))
        orders.add(tuple(map(tuple, found)))
    assert len(orders) == 30 and len(dropped) > 20
    assert [len(batch) for batch in found] != sorted(map(len, found), reverse=True)  # groups are mixed over the epoch


def test_two_groups_of_one_batch_size_lose_no_batch():
    for first in range(1, 30):
        chains = [[Group(np.arange(first), 4)], [Group(np.arange(first, 30), 4)]]
        assert len(GroupedBatches(chains, rest=4, seed=0)) == len(EpochBatches(size=30, batch_size=4, seed=0))


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_global_batch_of_one(world):
    one = positions(batches())
    many = [positions(batches(rank, world, scale=world)) for rank in range(world)]
    assert [sum(parts, []) for parts in zip(*many, strict=True)] == one


def test_a_state_goes_on_in_the_middle_and_then_starts_the_next_epoch_whole():
    sampler = batches()
    sampler.epoch = 4
    whole = list(sampler)
    other = batches()
    other.load_state_dict({**sampler.state_dict(), "batch": 3})
    assert list(other) == whole[3:]
    assert list(other) == whole


def test_a_state_of_other_groups_or_another_global_batch_is_refused():
    state = batches().state_dict() | {"batch": 3}
    with pytest.raises(ValueError, match="global_batch 8, but this run has 16"):
        batches(world=2).place(state)
    with pytest.raises(ValueError, match=r"groups \d+, but this run has"):
        GroupedBatches([[Group(np.arange(83), 8)]], rest=8, seed=5).place(state)
    with pytest.raises(ValueError, match="seed 5, but this run has 6"):
        batches(seed=6).place(state)
    with pytest.raises(ValueError, match="no 'groups'"):
        batches().place(EpochBatches(size=83, batch_size=8, seed=5).state_dict())
    assert batches(0, 2, scale=2).place(state) == (0, 3)


def test_too_few_samples():
    with pytest.raises(ValueError, match="3 training samples do not fill one batch of 4 x 1 processes"):
        GroupedBatches([[Group(np.arange(2), 4)], [Group(np.arange(2, 3), 4)]], rest=4, seed=0)
