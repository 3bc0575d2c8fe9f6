"""Cells, covers and normalization, against their definitions point by point."""

from __future__ import annotations

import pytest
import torch

from pointmix.data.segment.clouds.config import CloudSettings
from pointmix.data.segment.clouds.crops import (
    box_cover,
    cell_keys,
    grid_fragments,
    normalize_crop,
    one_per_cell,
    sphere_cover,
)
from pointmix.pointset import PointSet

FAR = torch.tensor([650000.0, 6860000.0, 120.0], dtype=torch.float64)


def scene(n: int = 3000, size: tuple[float, float, float] = (6, 4, 2)) -> torch.Tensor:
    return torch.rand(n, 3, dtype=torch.float64) * torch.tensor(size, dtype=torch.float64) + FAR


def one_set(pos: torch.Tensor) -> PointSet:
    return PointSet(pos, torch.zeros(len(pos), 0), torch.tensor([0, len(pos)]))


def cells_of(pos: torch.Tensor, size: float) -> list[tuple[int, ...]]:
    return [tuple(cell) for cell in ((pos - pos.amin(0)) / size).floor().long().tolist()]


def test_points_have_the_same_key_in_the_same_cell_alone():
    pos = scene()
    key, stride = cell_keys(pos, 0.5)
    pairs = set(zip(key.tolist(), cells_of(pos, 0.5), strict=True))
    assert len(pairs) == len({k for k, _ in pairs}) == len({c for _, c in pairs}) > 100
    moved, _ = cell_keys(torch.cat([pos.amin(0, keepdim=True), pos.amax(0, keepdim=True), pos]), 0.5)
    assert torch.equal(moved[2:], key)
    low = pos.amin(0)
    two = torch.stack([low + 0.25, low + torch.tensor([0.25, 0.75, 0.25])])
    ends = torch.stack([low, pos.amax(0)])
    near, _ = cell_keys(torch.cat([ends, two]), 0.5)
    assert near[3] - near[2] == stride[1]


def test_too_many_cells_are_refused():
    with pytest.raises(ValueError, match="cells of 1e-09 are too small for points that span"):
        cell_keys(scene(), 1e-9)


def test_one_random_point_a_cell():
    pos = scene()
    picks = [one_per_cell(pos, 0.5) for _ in range(2)]
    cells = cells_of(pos, 0.5)
    for index in picks:
        chosen = [cells[i] for i in index.tolist()]
        assert len(set(chosen)) == len(chosen) == len(set(cells))
    assert not torch.equal(picks[0].sort().values, picks[1].sort().values)


def test_every_point_of_a_cell_is_picked_as_often():
    pos = torch.tensor([[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0], [5, 0, 0]])
    count = torch.zeros(4)
    for _ in range(600):
        count[one_per_cell(pos, 1.0)] += 1
    assert count[3] == 600 and (count[:3] - 200).abs().max() < 60


def test_a_cell_of_very_many_points_is_warned_of():
    pos = torch.cat([torch.zeros(501, 3), torch.ones(5, 3)])
    with pytest.warns(UserWarning, match="a cell of data.grid_size 0.1 holds 501 points .are there duplicates.*--fast"):
        assert len(grid_fragments(one_set(pos), 0.1)) == 501


def test_fragments_hold_every_point_and_one_a_cell():
    pos = scene(2000)
    cells = cells_of(pos, 0.7)
    fragments = grid_fragments(one_set(pos), 0.7)
    most = max(cells.count(cell) for cell in set(cells))
    assert len(fragments) == most
    seen = torch.zeros(len(pos))
    for index in fragments:
        chosen = [cells[i] for i in index.tolist()]
        assert len(set(chosen)) == len(chosen) == len(set(cells))
        seen[index] += 1
    assert seen.min() >= 1
    fullest = max(set(cells), key=cells.count)
    assert all(seen[i] == 1 for i, cell in enumerate(cells) if cell == fullest)
    with pytest.raises(ValueError, match="expected one set, got 2"):
        grid_fragments(PointSet.cat([one_set(pos), one_set(pos)]), 0.7)


@pytest.mark.parametrize("spacing", [1.0, 1.15])
def test_spheres_hold_every_point_and_overlap(spacing):
    pos, radius = scene(), 0.8
    spheres = sphere_cover(pos, radius, spacing=spacing)
    low, size = pos.amin(0), spacing * radius
    middles = sorted(set(cells_of(pos, size)))  # keys rise in the order of the cells
    assert len(spheres) == len(middles)
    seen = torch.zeros(len(pos))
    for index, middle in zip(spheres, middles, strict=True):
        distance = torch.linalg.vector_norm(pos - low - (torch.tensor(middle) + 0.5) * size, dim=1)
        assert torch.equal(index, (distance <= radius).nonzero().squeeze(1))
        seen[index] += 1
    assert seen.min() >= 1 and seen.mean() > 1.5
    with pytest.raises(ValueError, match="spacing must be from 1 to 1.155, got 1.2"):
        sphere_cover(pos, radius, spacing=1.2)


@pytest.mark.parametrize("up, flat", [("z", [0, 1]), ("y", [0, 2]), (None, [0, 1])])
def test_columns_hold_every_point_and_overlap(up, flat):
    pos, side = scene(), 1.2
    boxes = box_cover(pos, side, up=up)
    low = pos.amin(0)
    middles = sorted({(cell[flat[0]], cell[flat[1]]) for cell in cells_of(pos, side / 2)})
    assert len(boxes) == len(middles)
    seen = torch.zeros(len(pos))
    for index, middle in zip(boxes, middles, strict=True):
        away = (pos - low)[:, flat] - (torch.tensor(middle) + 0.5) * side / 2
        assert torch.equal(index, (away.abs() <= side / 2).all(1).nonzero().squeeze(1))
        seen[index] += 1
    assert seen.min() >= 1 and 3 < seen.mean() <= 4
    assert sum(map(len, box_cover(pos, side, up=up, spacing=1.0))) == len(pos)
    with pytest.raises(ValueError, match="spacing must be from 0.5 to 1, got 0.4"):
        box_cover(pos, side, spacing=0.4)


def test_a_single_point_is_covered():
    pos = FAR[None]
    for cover in (sphere_cover(pos, 1.0), box_cover(pos, 1.0), grid_fragments(one_set(pos), 1.0)):
        assert [index.tolist() for index in cover] == [[0]]


@pytest.mark.parametrize("up", ["x", "y", "z", None])
def test_crops_are_centered_on_their_lowest_point(up):
    pos = scene()
    points = normalize_crop(one_set(pos), CloudSettings(normalize="center", up=up))
    axis = "xyz".index(up or "z")
    assert points.pos.dtype == torch.float32
    for i in range(3):
        low, high = points.pos[:, i].aminmax()
        assert abs(low) < 1e-6 if i == axis else abs(low + high) < 1e-6
    expected = pos - (pos.amin(0) + pos.amax(0)) / 2  # in double precision before the cast
    others = [i for i in range(3) if i != axis]
    assert (points.pos[:, others] - expected[:, others]).abs().max() < 1e-6


def test_sets_are_normalized_each_on_its_own():
    a, b = scene(100), scene(50) * 0.5
    cfg = CloudSettings(normalize="unit_sphere", up="y")
    both = normalize_crop(PointSet.cat([one_set(a), one_set(b)]), cfg)
    for found, pos in zip(both.unbind(), (a, b), strict=True):
        assert torch.equal(found.pos, normalize_crop(one_set(pos), cfg).pos)
        distance = torch.linalg.vector_norm(found.pos, dim=1)
        assert abs(distance.max() - 1) < 1e-6
    assert normalize_crop(one_set(FAR[None]), cfg).pos.tolist() == [[0, 0, 0]]


def test_no_normalization_keeps_positions_near_the_origin_and_moves_far_ones():
    near = scene() - FAR
    none = CloudSettings(normalize="none")
    assert torch.equal(normalize_crop(one_set(near), none).pos, near.float())
    far = normalize_crop(one_set(scene(10) + 10 * FAR), none).pos
    assert len(far.unique(dim=0)) == 10 and far.abs().max() < 10
