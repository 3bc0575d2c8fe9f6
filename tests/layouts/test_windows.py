from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix.layouts.windows import (
    adaptive_pool_members,
    first_occurrence,
    member_signature,
    reflect_cells,
    reflect_padding,
    window_bounds,
)

SIDES = [1, 2, 7, 13, 49, 56, 97]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("per_side", [1, 2, 3, 7, 8])
def test_windows_cover_a_side_evenly(side, per_side):
    per_side = min(per_side, side)
    start, length = window_bounds(torch.arange(per_side), side, per_side)
    assert start[0] == 0 and int(length.sum()) == side
    assert torch.equal(start[1:], (start + length)[:-1])  # no gap, no overlap
    assert int(length.max() - length.min()) <= 1 and int(length.min()) >= 1
    if side % per_side == 0:
        assert set(length.tolist()) == {side // per_side}
    position = torch.arange(side)
    window = position * per_side // side
    assert (position >= start[window]).all() and (position < (start + length)[window]).all()


def test_sides_may_differ():
    side = torch.tensor([5, 8, 3])
    start, length = window_bounds(torch.tensor([1, 1, 2]), side, torch.tensor([2, 2, 3]))
    assert start.tolist() == [3, 4, 2] and length.tolist() == [2, 4, 1]


@pytest.mark.parametrize("length", SIDES)
@pytest.mark.parametrize("centers", [1, 2, 4, 5, 7])
def test_members_are_those_of_adaptive_pooling(length, centers):
    member = adaptive_pool_members(torch.arange(length), torch.full((length,), length), centers)  # (L, P)
    assert member.dtype == torch.bool and (member.sum(0) > 0).all() and (member.sum(1) > 0).all()
    x = torch.randn(1, 1, length, dtype=torch.float64)
    mean = x[0, 0] @ member.double() / member.sum(0)
    torch.testing.assert_close(mean, F.adaptive_avg_pool1d(x, centers)[0, 0])


def test_first_of_equals_compares_the_members_of_each_center():
    members = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0]]).bool()  # (L, M)
    both = torch.stack([members, members.flip(1)])  # (R, L, M)
    signature = member_signature(both, torch.arange(4).expand(2, -1))
    assert first_occurrence(signature).tolist() == [[True, False, True, True], [True, True, True, False]]


def test_signatures_differ_for_sets_with_equal_sums():
    rank = torch.arange(10)
    pairs = torch.combinations(rank, 2)  # (45, 2)
    members = torch.zeros(1, 10, len(pairs), dtype=torch.bool)
    members[0, pairs.T, torch.arange(len(pairs))] = True
    assert first_occurrence(member_signature(members, rank[None])).all()


# ---- reflection -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "side, per_side, pad, expected",
    [
        (56, 7, "needed", (7, 0, 56)),
        (50, 7, "needed", (7, 3, 56)),
        (13, 1, "needed", (1, 0, 13)),
        (5, 2, "needed", (2, 0, 6)),
        (56, 7, "always", (7, 3, 63)),
        (50, 7, "always", (7, 3, 56)),
        (14, 1, "always", (1, 0, 15)),
        (3, 7, "needed", (7, 2, 7)),  # two cells on either end
        (2, 7, "needed", (2, 0, 2)),  # would take three
        (1, 7, "needed", (1, 0, 1)),
        (1, 1, "needed", (1, 0, 1)),
        (1, 1, "always", (1, 0, 1)),
        (7, 7, "always", (7, 3, 14)),
    ],
)
def test_how_sides_are_continued(side, per_side, pad, expected):
    assert reflect_padding(side, per_side, pad) == expected
    found = reflect_padding(torch.tensor([side, 56]), per_side, pad)
    assert tuple(int(t[0]) for t in found) == expected


@pytest.mark.parametrize("pad", ["needed", "always"])
@pytest.mark.parametrize("per_side", [1, 2, 3, 7, 8])
def test_continued_sides_are_cut_evenly(per_side, pad):
    side = torch.arange(1, 100)
    windows, before, padded = reflect_padding(side, per_side, pad)
    assert (padded % windows == 0).all() and ((windows == per_side) | (windows == side)).all()
    after = padded - side - before
    assert (before >= 0).all() and ((after == before) | (after == before + 1)).all()
    assert (after < side).all() and (
        padded - side <= per_side
    ).all()  # what can be reflected, and no more than it takes
    whole = (windows == per_side) & (side % per_side == 0)
    assert ((padded - side)[whole & (side > per_side)] == (per_side if pad == "always" else 0)).all()
    for row in zip(side.tolist(), windows.tolist(), before.tolist(), padded.tolist(), strict=True):
        assert reflect_padding(row[0], per_side, pad) == row[1:]


def test_unknown_padding():
    with pytest.raises(ValueError, match="pad must be 'needed' or 'always', got 'never'"):
        reflect_padding(8, 7, "never")


SETS = [(9, 13), (8, 8), (3, 4), (2, 30), (1, 1), (1, 5)]


@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("pad", ["needed", "always"])
def test_copies_are_those_of_reflection_padding(pad, density):
    """Of all sets at once: what lies on each cell of the continued lattice, which is nothing where the image has a
    hole."""
    size = torch.tensor(SETS)
    _, before, padded = reflect_padding(size, 7, pad)
    masks = [torch.rand(s) <= density for s in SETS]
    cell = torch.cat([m.nonzero() for m in masks])
    batch = torch.repeat_interleave(torch.arange(len(SETS)), torch.tensor([int(m.sum()) for m in masks]))
    point, at, own = reflect_cells(cell, size[batch], before[batch], padded[batch])
    assert torch.equal(point[own], torch.arange(len(cell)))  # each point is itself once, in order
    assert torch.equal(at[own], cell + before[batch])
    number = 0
    for b, mask in enumerate(masks):
        places = mask.flatten().long().cumsum(0).view(mask.shape) - 1 + number  # (H, W) index of each point
        number += int(mask.sum())
        image = torch.where(mask, places, -1)[None, None].double()
        (top, left), (down, right) = before[b].tolist(), (padded[b] - size[b] - before[b]).tolist()
        expected = F.pad(image, (left, right, top, down), mode="reflect")[0, 0].long()
        found = torch.full_like(expected, -1)
        here = batch[point] == b
        assert len(at[here].unique(dim=0)) == int(here.sum())
        found[tuple(at[here].T)] = point[here]
        assert torch.equal(found, expected)


def test_nothing_is_copied_where_nothing_is_continued():
    cell = torch.tensor([[3, 1], [0, 0]])
    size = torch.tensor([[8, 8], [2, 2]])
    point, at, own = reflect_cells(cell, size, torch.zeros_like(size), size)
    assert point.tolist() == [0, 1] and torch.equal(at, cell) and own.all()
