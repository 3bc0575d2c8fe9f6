from __future__ import annotations

import pytest
import torch

from pointmix.ops.ragged import ptr_to_batch
from pointmix.ops.sampling import (
    farthest_point_sampling,
    farthest_points_reference,
    grid_sampling,
    random_sampling,
    sample_counts,
    start_points,
)

RAGGED = torch.tensor([0, 7, 8, 20])


def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x.double()[:, None] - y.double()).square().sum(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("number", [3, 1000])
def test_reference_form_against_a_loop(cloud, number, dtype):
    pos, ptr = cloud[0].to(dtype), cloud[1]
    index, out_ptr = [], [0]
    for lo, hi in zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True):
        picks = [lo]
        while len(picks) < min(number, hi - lo):
            best, farthest = -1, None
            for n in range(lo, hi):
                d = min(sum((a - b) ** 2 for a, b in zip(pos[n], pos[p], strict=True)) for p in picks)
                if n not in picks and d > best:
                    best, farthest = d, n
            picks.append(farthest)
            if len(picks) > 6:  # the loop is slow
                break
        index.append(picks)
        out_ptr.append(out_ptr[-1] + min(number, hi - lo))
    ptr_, start = torch.tensor(out_ptr), torch.zeros(len(index), dtype=torch.int64)
    out = farthest_points_reference(pos, ptr, ptr_, start)
    for first, picks in zip(out_ptr, index, strict=False):
        assert out[first : first + len(picks)].tolist() == picks


@pytest.mark.parametrize("number", [1, 7, 1000])
def test_every_backend_gives_the_picks_of_the_reference_form(backend, cloud, number):
    pos, ptr = cloud
    for start in (None, ptr.diff() // 2):
        index, out_ptr = farthest_point_sampling(
            pos.to(backend[1]), ptr.to(backend[1]), number, start=None if start is None else start.to(backend[1])
        )
        expected = farthest_points_reference(
            pos, ptr, out_ptr.cpu(), torch.zeros_like(ptr[1:]) if start is None else start
        )
        assert out_ptr.diff().tolist() == ptr.diff().clamp(max=number).tolist()
        assert index.tolist() == expected.tolist()


def test_each_pick_is_the_farthest_from_the_earlier_ones(backend, cloud):
    pos, ptr = cloud
    index, out_ptr = farthest_point_sampling(pos.to(backend[1]), ptr.to(backend[1]), ratio=0.6)
    index = index.cpu()
    for b in range(len(ptr) - 1):
        x, picks = pos[ptr[b] : ptr[b + 1]], index[out_ptr[b] : out_ptr[b + 1]]
        assert picks[0] == ptr[b] and len(picks.unique()) == len(picks)
        for j in range(1, len(picks)):
            d = distance(x, pos[picks[:j]]).amin(1)  # of every point to the earlier picks
            assert d[picks[j] - ptr[b]] >= d.max() * (1 - 1e-5) - 1e-37


def test_few_points_are_all_kept():
    pos = torch.randn(20, 3)
    index, ptr = farthest_point_sampling(pos, RAGGED, 8)
    assert ptr.tolist() == [0, 7, 8, 16]
    assert sorted(index[:7].tolist()) == list(range(7)) and index[7] == 7


def test_equal_points_follow_by_index(backend):
    pos = torch.ones(6, 2, device=backend[1])
    ptr = torch.tensor([0, 6], device=backend[1])
    assert farthest_point_sampling(pos, ptr, 4)[0].tolist() == [0, 1, 2, 3]
    start = torch.tensor([2], device=backend[1])
    assert farthest_point_sampling(pos, ptr, 4, start=start)[0].tolist() == [2, 0, 1, 3]


def test_ties_go_to_the_lower_index(backend):
    pos = torch.tensor([[0.0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], device=backend[1])
    index, _ = farthest_point_sampling(pos, torch.tensor([0, 5], device=backend[1]), 5)
    assert index.tolist() == [0, 1, 2, 3, 4]


def test_distances_start_at_infinity(backend):
    pos = torch.tensor([[0.0], [3e5], [1e6], [4e5]], device=backend[1])
    assert farthest_point_sampling(pos, torch.tensor([0, 4], device=backend[1]), 3)[0].tolist() == [0, 2, 3]


def test_a_set_does_not_depend_on_its_batch(backend):
    pos, ptr = torch.randn(20, 3, device=backend[1]), RAGGED.to(backend[1])
    for options in ({}, {"seed": 3}):
        index, out_ptr = farthest_point_sampling(pos, ptr, 5, **options)
        alone, _ = farthest_point_sampling(pos[8:], ptr[2:] - 8, 5, **options)
        assert (index[out_ptr[2] :] - 8).tolist() == alone.tolist()


def test_low_precision_positions_count_as_single():
    pos = torch.randn(20, 3).half()
    assert torch.equal(farthest_point_sampling(pos, RAGGED, 5)[0], farthest_point_sampling(pos.float(), RAGGED, 5)[0])


def test_how_many_are_wanted():
    ptr = torch.tensor([0, 30, 31, 131])
    assert sample_counts("op", ptr, 10, None).tolist() == [10, 1, 10]
    assert sample_counts("op", ptr, None, 0.1).tolist() == [3, 1, 10]
    assert sample_counts("op", ptr, None, 0.101).tolist() == [4, 1, 11]
    assert sample_counts("op", ptr, None, 1.0).tolist() == [30, 1, 100]


def test_seeded_start():
    first = start_points("op", RAGGED, None, 5)
    assert torch.equal(first, start_points("op", RAGGED, None, 5))
    assert (first >= 0).all() and (first < RAGGED.diff()).all()
    ptr = torch.tensor([0, 1000])
    assert len({int(start_points("op", ptr, None, seed)) for seed in range(20)}) > 10


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "give either num_samples or ratio"),
        ({"num_samples": 3, "ratio": 0.5}, "give either num_samples or ratio"),
        ({"num_samples": 0}, "at least 1, got 0"),
        ({"num_samples": 2.5}, "integer"),
        ({"num_samples": float("inf")}, "integer"),
        ({"num_samples": float("nan")}, "integer"),
        ({"ratio": 0.0}, r"ratio must be in \(0, 1\], got 0.0"),
        ({"ratio": 1.5}, "ratio must be"),
        ({"num_samples": 2, "start": torch.zeros(3, dtype=torch.int64), "seed": 1}, "either start or seed"),
        ({"num_samples": 2, "start": torch.zeros(2, dtype=torch.int64)}, r"start must be \(3,\) int64"),
        ({"num_samples": 2, "start": torch.zeros(3)}, "start must be"),
        ({"num_samples": 2, "start": torch.tensor([0, 1, 0])}, "start of set 1 is 1, but the set has 1 points"),
        ({"num_samples": 2, "start": torch.tensor([-1, 0, 0])}, "start of set 0 is -1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"^farthest_point_sampling: .*{message}"):
        farthest_point_sampling(torch.randn(20, 3), RAGGED, **options)


@pytest.mark.parametrize("op", [lambda *a: farthest_point_sampling(*a, 2), lambda *a: grid_sampling(*a, 1.0)])
def test_positions_are_checked(op):
    with pytest.raises(ValueError, match="ptr must rise"):
        op(torch.randn(19, 3), RAGGED)
    with pytest.raises(ValueError, match="must be finite"):
        op(torch.full((20, 3), torch.nan), RAGGED)


@pytest.mark.parametrize("size", [0.3, 1.0, 2.7, 100.0])
def test_grid_keeps_the_point_nearest_to_the_center_of_each_cell(cloud, size):
    pos, ptr = cloud
    size = size * float(pos.abs().max().clamp(min=1e-30))
    index, out_ptr = grid_sampling(pos, ptr, size)
    cell = (pos.double() / size).floor()
    owner, off = ptr_to_batch(ptr, len(pos)), (pos.double() / size - cell - 0.5).square().sum(1)
    cells: dict[tuple, list[int]] = {}
    for n, key in enumerate(zip(owner.tolist(), *cell.t().tolist(), strict=True)):
        cells.setdefault(key, []).append(n)
    assert len(index) == len(cells) and out_ptr[-1] == len(index)
    for i, key in zip(index.tolist(), sorted(cells), strict=True):  # in the order of the cells
        assert i in cells[key] and off[i] <= off[cells[key]].min() + 1e-12
    assert owner[index].tolist() == ptr_to_batch(out_ptr, len(index)).tolist()


def test_grid_does_not_depend_on_the_order_of_the_points():
    pos = torch.randn(20, 3)
    order = torch.cat([torch.randperm(7), torch.tensor([7]), 8 + torch.randperm(12)])
    index, moved = grid_sampling(pos, RAGGED, 0.8)[0], grid_sampling(pos[order], RAGGED, 0.8)[0]
    assert 3 < len(index) < 20 and torch.equal(order[moved], index)


def test_grid_ties_go_to_the_lower_index():
    pos = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.4, 0.5], [1.4, 0.5], [1.6, 0.5]])
    assert grid_sampling(pos, torch.tensor([0, 5]), 1.0)[0].tolist() == [0, 3]


@pytest.mark.parametrize("size", [0, -1.0, float("nan"), float("inf"), 1e-300])
def test_bad_cell_sizes_are_named(size):
    with pytest.raises(ValueError, match="^grid_sampling: size"):
        grid_sampling(torch.randn(20, 3), RAGGED, size)


def test_random_sampling():
    index, ptr = random_sampling(RAGGED, 5, seed=1)
    assert ptr.tolist() == [0, 5, 6, 11] and len(index.unique()) == len(index)
    assert ptr_to_batch(RAGGED, 20)[index].tolist() == ptr_to_batch(ptr, 11).tolist()
    assert torch.equal(index, random_sampling(RAGGED, 5, seed=1)[0])
    assert not torch.equal(index, random_sampling(RAGGED, 5, seed=2)[0])
    assert torch.equal(index[6:] - 8, random_sampling(RAGGED[2:] - 8, 5, seed=1)[0])  # alone as in the batch
    assert sorted(random_sampling(RAGGED, ratio=1.0, seed=1)[0].tolist()) == list(range(20))
    with pytest.raises(ValueError, match="^random_sampling: num_samples"):
        random_sampling(RAGGED, 0, seed=1)
