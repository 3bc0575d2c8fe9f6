from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix.layouts.windows import first_of_equals, member_signature, pool_members, window_bounds

SIDES = [1, 2, 7, 13, 49, 56, 97]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("folds", [1, 2, 3, 7, 8])
def test_windows_cover_a_side_evenly(side, folds):
    folds = min(folds, side)
    start, length = window_bounds(torch.arange(folds), side, folds)
    assert start[0] == 0 and int(length.sum()) == side
    assert torch.equal(start[1:], (start + length)[:-1])  # no gap, no overlap
    assert int(length.max() - length.min()) <= 1 and int(length.min()) >= 1
    if side % folds == 0:
        assert set(length.tolist()) == {side // folds}
    position = torch.arange(side)
    window = position * folds // side
    assert (position >= start[window]).all() and (position < (start + length)[window]).all()


def test_sides_may_differ():
    side = torch.tensor([5, 8, 3])
    start, length = window_bounds(torch.tensor([1, 1, 2]), side, torch.tensor([2, 2, 3]))
    assert start.tolist() == [3, 4, 2] and length.tolist() == [2, 4, 1]


@pytest.mark.parametrize("length", SIDES)
@pytest.mark.parametrize("centers", [1, 2, 4, 5, 7])
def test_members_are_those_of_adaptive_pooling(length, centers):
    member = pool_members(torch.arange(length), torch.full((length,), length), centers)  # (L, P)
    assert member.dtype == torch.bool and (member.sum(0) > 0).all() and (member.sum(1) > 0).all()
    x = torch.randn(1, 1, length, dtype=torch.float64)
    mean = x[0, 0] @ member.double() / member.sum(0)
    torch.testing.assert_close(mean, F.adaptive_avg_pool1d(x, centers)[0, 0])


def test_first_of_equals_compares_the_members_of_each_center():
    members = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0]]).bool()  # (L, M)
    both = torch.stack([members, members.flip(1)])  # (R, L, M)
    signature = member_signature(both, torch.arange(4).expand(2, -1))
    assert first_of_equals(signature).tolist() == [[True, False, True, True], [True, True, True, False]]


def test_signatures_differ_for_sets_with_equal_sums():
    rank = torch.arange(10)
    pairs = torch.combinations(rank, 2)  # (45, 2)
    members = torch.zeros(1, 10, len(pairs), dtype=torch.bool)
    members[0, pairs.T, torch.arange(len(pairs))] = True
    assert first_of_equals(member_signature(members, rank[None])).all()
