from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.layouts.plan import with_relative_pos
from pointmix.layouts.sparse import SparseGrid

KERNELS = [(4, 4, 0), (3, 2, 1), (3, 1, 1), (7, 4, 3), (3, 2, 0), (5, 3, 2)]


def reduce(points: PointSet, weight, bias, stride, padding, keep_cells, absent="zero"):
    settings = dict(stride=stride, padding=padding, keep_cells=keep_cells, absent=absent)
    return PointSet(*points.layout.reduce(points.pos, points.feat, points.ptr, weight, bias, **settings))


def present(points: PointSet) -> list[torch.Tensor]:
    """Where each set has points, (H, W) each."""
    maps = points.with_feat(torch.ones_like(points.feat[:, :1])).to_image()
    return [m[0].bool() for m in maps]


def moved(image: torch.Tensor, mask: torch.Tensor, kept: torch.Tensor, stride: int) -> tuple[torch.Tensor, ...]:
    """The image and mask with the points of cells that are not kept at the nearest pixel of the nearest cell that is;
    where several meet, their mean."""
    total, number = torch.zeros_like(image), torch.zeros(mask.shape, dtype=image.dtype)
    for at in mask.nonzero():
        cell = at // stride
        if not kept[tuple(cell)]:
            cell = kept.nonzero()[(kept.nonzero() - cell).square().sum(1).argmin()]
        row, col = at.clamp(cell * stride, cell * stride + stride - 1).tolist()
        total[:, row, col] += image[(slice(None), *at)]
        number[row, col] += 1
    return total / number.clamp(min=1), number > 0


def random_mask(height: int, width: int, density: float) -> torch.Tensor:
    mask = torch.rand(height, width) < density
    mask[height // 2, width // 3] = True
    return mask


@pytest.mark.parametrize("keep_cells", ["occupied", "area"])
@pytest.mark.parametrize("density", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("kernel, stride, padding", KERNELS)
def test_reduce_is_a_convolution_with_zeros_for_absent_cells(kernel, stride, padding, density, keep_cells):
    sizes = [(13, 17), (8, 8), (1, 7)]
    images = [torch.randn(3, *size, dtype=torch.float64) for size in sizes]
    masks = [random_mask(*size, density) for size in sizes]
    points = PointSet.from_images(images, masks)
    weight, bias = torch.randn(5, 3, kernel, kernel, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    out = reduce(points, weight, bias, stride, padding, keep_cells)
    for image, mask, part in zip(images, masks, out.unbind(), strict=True):
        height, width = (-(-side // stride) for side in mask.shape)
        assert part.layout.size.tolist() == [[height, width]]
        occupied = F.max_pool2d(mask[None].float(), stride, ceil_mode=True)[0].bool()  # (H', W')
        if (kernel, padding) == (stride, 0):
            image, mask = moved(image, mask, present(part)[0], stride)
        wide = F.pad(image * mask, (padding, kernel + stride, padding, kernel + stride))
        dense = F.conv2d(wide, weight, bias, stride)[..., :height, :width]
        at = part.layout.cell.T
        torch.testing.assert_close(part.feat, dense[:, at[0], at[1]].T)
        assert occupied[at[0], at[1]].all()
        if keep_cells == "occupied":
            assert torch.equal(present(part)[0], occupied)


@pytest.mark.parametrize("keep_cells", ["occupied", "area"])
@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (4, 4, 0), (5, 2, 2)])
def test_absent_nearest_reads_the_nearest_present_cell_of_the_kernel(kernel, stride, padding, keep_cells):
    image, mask = torch.randn(3, 9, 11, dtype=torch.float64), random_mask(9, 11, 0.4)
    points = PointSet.from_image(image, mask)
    weight, bias = torch.randn(5, 3, kernel, kernel, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    out = reduce(points, weight, bias, stride, padding, keep_cells, absent="nearest")
    if (kernel, padding) == (stride, 0):
        image, mask = moved(image, mask, present(out)[0], stride)
    slots = torch.cartesian_prod(torch.arange(kernel), torch.arange(kernel))
    for (row, col), feat in zip(out.layout.cell.tolist(), out.feat, strict=True):
        cells = slots + torch.tensor([row, col]) * stride - padding  # (K, 2)
        inside = (cells >= 0).all(1) & (cells < torch.tensor(mask.shape)).all(1)
        there = inside & mask[tuple(cells.clamp(min=0).minimum(torch.tensor(mask.shape) - 1).T)]
        patch = torch.zeros(3, kernel**2, dtype=torch.float64)
        for i in inside.nonzero().flatten().tolist():
            distance = (slots - slots[i]).square().sum(1).masked_fill(~there, 10**6)
            patch[:, i] = image[(slice(None), *cells[distance.argmin()].tolist())]
        torch.testing.assert_close(feat, weight.flatten(1) @ patch.flatten() + bias)


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_area_keeps_as_many_cells_as_the_points_fill(stride, density):
    sizes = [(24, 36), (13, 7), (1, 1), (5, 40)]
    masks = [random_mask(*size, density) for size in sizes]
    points = PointSet.from_images([torch.randn(1, *size) for size in sizes], masks)
    out = reduce(points, torch.ones(1, 1, stride + 1, stride + 1), None, stride, 0, "area")
    for mask, part in zip(masks, out.unbind(), strict=True):
        filled = mask[None, None].double()
        share = F.avg_pool2d(filled, stride, ceil_mode=True, count_include_pad=False)[0, 0]  # (H', W')
        number = int(torch.ceil(share.sum() - 1e-6))
        assert len(part.feat) == number >= 1
        kept = present(part)[0]
        assert kept.sum() == number and share[kept].min() >= share[~kept].max() if (~kept).any() else True


def test_area_counts_exactly():
    mask = torch.zeros(3 * 60, 3 * 60, dtype=torch.bool)
    mask.view(60, 3, 60, 3)[:, 0, :, 0] = True  # one pixel of nine in each of 3600 cells
    points = PointSet.from_image(torch.randn(1, 180, 180), mask)
    assert len(reduce(points, torch.ones(1, 1, 4, 4), None, 3, 0, "area").feat) == 400


def test_area_keeps_every_cell_of_a_full_lattice():
    for size in [(1, 1), (7, 13), (8, 6)]:
        points = PointSet.from_images(torch.randn(2, 1, *size)).as_sparse()
        out = reduce(points, torch.ones(1, 1, 3, 3), None, 2, 1, "area")
        assert all(m.all() for m in present(out))


def test_area_leaves_something_of_every_set():
    lonely = []
    for k in range(5):
        mask = torch.zeros(9, 9, dtype=torch.bool)
        mask[k, 2 * k] = True
        lonely.append(mask)
    points = PointSet.from_images(torch.randn(5, 1, 9, 9), lonely)
    for _ in range(4):
        points = reduce(points, torch.ones(1, 1, 3, 3), None, 2, 1, "area")
        assert points.ptr.tolist() == [0, 1, 2, 3, 4, 5]


def test_area_spreads_over_equal_cells():
    """Every second pixel of a row leaves all coarse cells equally full: those that stay come from everywhere."""
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[::2, ::2] = True  # one pixel of four in each 2x2 cell
    out = reduce(PointSet.from_image(torch.randn(1, 32, 32), mask), torch.ones(1, 1, 3, 3), None, 2, 1, "area")
    assert len(out.feat) == 64
    quarters = present(out)[0].view(2, 8, 2, 8).sum((1, 3))
    assert quarters.min() >= 8  # of 16 on average


@pytest.mark.parametrize("keep_cells", ["occupied", "area"])
def test_reduced_positions_are_means_of_present_points(keep_cells):
    mask = random_mask(13, 11, 0.5)
    points = PointSet.from_image(torch.randn(1, 13, 11, dtype=torch.float64), mask)
    out = reduce(points, torch.ones(1, 1, 3, 3, dtype=torch.float64), None, 2, 1, keep_cells)
    parent = points.layout.cell // 2
    for cell, pos in zip(out.layout.cell, out.pos, strict=True):
        torch.testing.assert_close(pos, points.pos[(parent == cell).all(1)].mean(0))


def test_a_cell_lies_at_the_mean_of_the_points_it_takes():
    """One pixel in each of nine cells fills less than one cell; the one that stays takes them all."""
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[::4, ::4] = True
    points = PointSet.from_image(torch.randn(1, 12, 12, dtype=torch.float64), mask)
    for keep_cells, cells in (("occupied", 9), ("area", 1)):
        out = reduce(points, torch.ones(1, 1, 4, 4, dtype=torch.float64), None, 4, 0, keep_cells)
        assert len(out.feat) == cells
        torch.testing.assert_close(out.pos.mean(0), points.pos.mean(0))


def test_points_of_cells_that_go_have_gradients():
    points = PointSet.from_images(torch.randn(2, 2, 8, 8).double(), [random_mask(8, 8, 0.2), random_mask(8, 8, 0.3)])
    weight = torch.randn(3, 2, 2, 2, dtype=torch.float64)

    def run(feat):
        return reduce(points.with_feat(feat), weight, None, 2, 0, "area").feat

    feat = points.feat.requires_grad_()
    assert torch.autograd.gradcheck(run, feat, fast_mode=True)
    assert (torch.autograd.grad(run(feat).square().sum(), feat)[0] != 0).any(1).all()  # every point is read


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("keep_cells", ["occupied", "area"])
def test_pooled_features_are_means_of_present_points(keep_cells, stride, ragged):
    coarse = reduce(ragged, torch.randn(5, 3, 3, 3, dtype=torch.float64), None, stride, 1, keep_cells)
    pooled, valid = ragged.layout.pool(ragged, coarse, stride)
    assert valid is None and len(pooled) == len(coarse.feat)
    for part, out in zip(ragged.unbind(), coarse.with_feat(pooled).unbind(), strict=True):
        for cell, mean in zip(out.layout.cell, out.feat, strict=True):
            inside = (part.layout.cell // stride == cell).all(1)
            torch.testing.assert_close(mean, part.feat[inside].mean(0))


@pytest.mark.parametrize("absent", ["zero", "nearest"])
@pytest.mark.parametrize("kernel, padding", [(3, 1), (2, 0)])
@pytest.mark.parametrize("keep_cells", ["occupied", "area"])
def test_order_of_points_does_not_matter(keep_cells, kernel, padding, absent, ragged, shuffle):
    weight = torch.randn(4, 3, kernel, kernel, dtype=torch.float64)
    one, other = (reduce(p, weight, None, 2, padding, keep_cells, absent) for p in (ragged, shuffle(ragged)[0]))
    assert torch.equal(one.layout.cell, other.layout.cell) and torch.equal(one.ptr, other.ptr)
    torch.testing.assert_close(one.feat, other.feat)
    torch.testing.assert_close(one.pos, other.pos)


@pytest.mark.parametrize("kernel, padding", [(3, 1), (2, 0)])
@pytest.mark.parametrize("keep_cells", ["occupied", "area"])
def test_sets_do_not_see_each_other(keep_cells, kernel, padding, ragged):
    weight = torch.randn(4, 3, kernel, kernel, dtype=torch.float64)
    together = reduce(ragged, weight, None, 2, padding, keep_cells).unbind()
    for part, alone in zip(together, ragged.unbind(), strict=True):
        alone = reduce(alone, weight, None, 2, padding, keep_cells)
        assert torch.equal(part.layout.cell, alone.layout.cell)
        torch.testing.assert_close(part.feat, alone.feat)


def test_neighbors_across_the_edge_are_not_neighbors():
    """The last pixel of a row and the first of the next lie side by side in memory, not on the lattice."""
    points = PointSet.from_pixels(torch.ones(2, 1), [0, 1], [4, 0], (3, 5))
    out = reduce(points, torch.ones(1, 1, 3, 3), None, 1, 1, "occupied")
    assert out.feat.flatten().tolist() == [1, 1]


def test_gradients():
    points = PointSet.from_images(torch.randn(2, 2, 5, 4).double(), [random_mask(5, 4, 0.5), random_mask(5, 4, 0.5)])
    weight, bias = torch.randn(3, 2, 3, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)

    def run(feat, weight, bias):
        return reduce(points.with_feat(feat), weight, bias, 2, 1, "occupied").feat

    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in (points.feat, weight, bias)], fast_mode=True)


def test_windows_follow_each_sets_own_lattice():
    images = [torch.randn(1, 8, 8), torch.randn(1, 3, 2)]
    plan = (points := PointSet.from_images(images)).layout.plan(points.pos, points.ptr, 4, 1)
    assert plan.num_windows == 16 + 3 * 2


def test_repr_and_check():
    layout = SparseGrid(torch.zeros(3, 2, dtype=torch.int64), torch.tensor([[4, 5]]))
    assert repr(layout) == "some cells of 4x5"
    assert repr(SparseGrid(layout.cell, torch.tensor([[4, 5], [6, 7]]))) == "some cells of 2 different sizes"
    layout.check(3, 1)
    with pytest.raises(ValueError, match=r"cells \(4, 2\) and sizes \(1, 2\)"):
        layout.check(4, 1)


# ---- windows of lattices that are continued by reflection -------------------------------------------------------


def plan_of(points: PointSet, per_side: int, centers: int = 1, pad: str | None = "needed", **kwargs):
    return points.layout.plan(points.pos.double(), points.ptr, per_side, centers, pad=pad, **kwargs)


def windows(plan, x: torch.Tensor) -> list[list]:
    """What lies in each window, in an order of its own."""
    rows = plan.window_partition(plan.to_window_order(x[:, None]))[..., 0]
    window = torch.arange(plan.num_windows) if plan.row_window is None else plan.row_window
    valid = torch.ones_like(rows, dtype=torch.bool) if plan.valid is None else plan.valid
    return [sorted(rows[window == s][valid[window == s]].tolist()) for s in range(plan.num_windows)]


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("pad", ["needed", "always"])
@pytest.mark.parametrize(
    "size, per_side, centers",
    [((8, 12), 4, 2), ((9, 13), 4, 2), ((4, 9), 7, 1), ((5, 6), 1, 7), ((2, 30), 7, 2), ((1, 1), 7, 2)],
)
def test_full_lattices_plan_as_grids(size, per_side, centers, pad, shift):
    points = PointSet.from_images(torch.randn(2, 3, *size, dtype=torch.float64))
    settings = dict(pad=pad, shift=shift, table_size=7, global_centers_per_side=2)
    grid, sparse = (plan_of(p, per_side, centers, **settings) for p in (points, points.as_sparse()))
    where = torch.arange(len(points.feat)).double()
    assert torch.equal(sparse.from_window_order(sparse.to_window_order(points.feat)), points.feat)
    assert torch.equal(
        sparse.from_window_order(sparse.window_reverse(sparse.window_partition(sparse.to_window_order(points.feat)))),
        points.feat,
    )
    rows = grid.window_partition(grid.to_window_order(where[:, None]))[..., 0]
    assert windows(sparse, where) == rows.sort(1).values.tolist()
    pooled, means = (
        [p.pool_centers(r), p.upper.mean(r)]
        for p in (grid, sparse)
        for r in [p.window_partition(p.to_window_order(points.feat))]
    )
    torch.testing.assert_close(pooled, means)
    assert sparse.center_valid.all() and sparse.upper.valid.all() and sparse.upper.center_valid.all()

    table = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    read = []  # at the own slot of each point
    for plan in (grid, sparse):
        bias = plan.table_lookup.read(table).transpose(1, 3)  # (R, L, E, M)
        bias = bias.repeat(len(plan.window_partition(plan.to_window_order(points.feat))) // len(bias), 1, 1, 1).flatten(
            2
        )
        read.append(plan.from_window_order(plan.window_reverse(bias.contiguous())))
    torch.testing.assert_close(*read)


@pytest.mark.parametrize("shift", [False, True])
def test_windows_hold_the_copies_of_present_points(ragged, shift):
    """Set by set; windows in which nothing lies do not exist."""
    number = torch.arange(len(ragged.feat)).double()
    plan = plan_of(ragged, 4, 2, shift=shift)
    expected = []
    for b, part in enumerate(ragged.unbind()):
        height, width = part.layout.size[0].tolist()
        image = torch.full((1, 1, height, width), -1.0, dtype=torch.float64)
        image[0, 0, part.layout.cell[:, 0], part.layout.cell[:, 1]] = number[ragged.ptr[b] : ragged.ptr[b + 1]]
        down, right = (-side % 4 for side in (height, width))
        image = F.pad(image, (right // 2, right - right // 2, down // 2, down - down // 2), mode="reflect")[0, 0]
        h, w = (side // 4 for side in image.shape)
        image = image.roll((-(h // 2), -(w // 2)), (0, 1)) if shift else image
        for i in range(4):
            for j in range(4):
                inside = image[i * h : (i + 1) * h, j * w : (j + 1) * w]
                expected.append(sorted(inside[inside >= 0].tolist()))
    assert [] in expected
    assert windows(plan, number) == [w for w in expected if w]
    assert torch.equal(
        plan.from_window_order(plan.window_reverse(plan.window_partition(plan.to_window_order(ragged.feat)))),
        ragged.feat,
    )


@pytest.mark.parametrize("at", [(0, 0), (4, 4), (8, 12), (2, 7)])
def test_all_windows_but_one_are_empty(at):
    mask = torch.zeros(9, 13)
    mask[at] = 1
    points = PointSet.from_images([torch.randn(3, 9, 13, dtype=torch.float64)] * 2, [mask, None])
    plan = plan_of(points, 3, 2, table_size=7, global_centers_per_side=4)
    lonely = points.feat[:1]
    rows = plan.window_partition(plan.to_window_order(points.feat))
    first = 1 if plan.row_window is None else int((plan.row_window == 0).sum())
    assert plan.upper.valid.sum(1).tolist() == [plan.num_windows - 9, 9]
    pooled = plan.pool_centers(rows)[: plan.num_windows - 9]
    exists = plan.center_valid[: plan.num_windows - 9]
    torch.testing.assert_close(pooled[exists], lonely.expand_as(pooled[exists]))
    assert exists.any(1).all() and first == 1
    torch.testing.assert_close(plan.upper.pool_centers(rows)[0, plan.upper.center_valid[0]][:1], lonely)


def test_tables_cover_each_sets_own_lattice():
    """A pixel reads the table at its position on its own grid, whatever the grids of the other sets."""
    sizes = [(7, 7), (14, 21), (9, 3)]
    points = PointSet.from_images([torch.zeros(1, *size, dtype=torch.float64) for size in sizes])
    plan = plan_of(points, 1, 1, table_size=7)
    table = torch.randn(1, 1, 7, 7, dtype=torch.float64)
    bias = plan.table_lookup.read(table)[:, 0, 0, :, None]  # (R, L, 1)
    expected = [F.interpolate(table, size, mode="bilinear", align_corners=True).flatten() for size in sizes]
    torch.testing.assert_close(plan.from_window_order(plan.window_reverse(bias))[:, 0], torch.cat(expected))


def test_a_continued_lattice_reads_its_table_from_edge_to_edge():
    """The table lies over the continued lattice: of 5 cells in 2 windows, the last is a copy."""
    points = PointSet.from_images(torch.zeros(1, 1, 1, 5, dtype=torch.float64)).as_sparse()
    plan = plan_of(points, 2, 1, table_size=6)
    table = torch.arange(6.0, dtype=torch.float64).expand(1, 1, 6, 6)
    bias = plan.table_lookup.read(table)[:, 0, 0, :, None]
    assert plan.from_window_order(plan.window_reverse(bias))[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_offsets_are_from_centers_of_present_points(ragged):
    plan = with_relative_pos(plan_of(ragged, 4, 2), ragged.pos)
    rows = plan.window_partition(plan.to_window_order(ragged.pos))
    centers = plan.pool_centers(rows)
    window = torch.arange(plan.num_windows) if plan.row_window is None else plan.row_window
    for r in range(len(rows)):
        torch.testing.assert_close(plan.relative_pos[r], rows[r] - centers[window[r]][:, None])
