from __future__ import annotations

import pytest
import torch

from pointmix import PointSet
from pointmix.layouts import cells
from pointmix.layouts.plan import index_plan
from pointmix.ops import use_backend
from pointmix.ops.ragged import counts_to_ptr

SIZES = [(1, 1), (7, 12), (16, 16), (5, 1), (31, 9), (2, 40)]


def lattices(density: float, sizes=SIZES) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cells, ptr and sizes of a batch; each lattice has a point at least."""
    found = []
    for height, width in sizes:
        mask = torch.rand(height, width) < density
        mask[torch.randint(height, ()), torch.randint(width, ())] = True
        cell = mask.nonzero()
        found.append(cell[torch.randperm(len(cell))])
    return torch.cat(found), counts_to_ptr(torch.tensor([len(c) for c in found])), torch.tensor(sizes)


def check(op, *args, **kwargs):
    """What tensors give, once numba has given the same numbers."""
    with use_backend("torch"):
        expected = op(*args, **kwargs)
    with use_backend("numba"):
        found = op(*args, **kwargs)
    found, expected = (t if isinstance(t, tuple) else (t,) for t in (found, expected))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)
    return expected if len(expected) > 1 else expected[0]


@pytest.mark.parametrize("keep_cells", ["occupied", "area"])
@pytest.mark.parametrize("density", [0.0, 0.15, 0.5, 1.0])
@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (4, 4, 0), (5, 3, 2), (1, 1, 0), (16, 16, 0)])
@pytest.mark.parametrize("sizes", [SIZES, [(14, 14)] * 3], ids=["ragged", "alike"])
def test_coarse_cells_and_what_their_kernels_cover(kernel, stride, padding, density, keep_cells, sizes, monkeypatch):
    monkeypatch.setattr(cells, "TABLE", 10**6)  # so that numba has its turn, however few points there are
    cell, ptr, size = lattices(density, sizes)
    new, new_ptr, _, parent = check(cells.coarse_cells, cell, ptr, size, stride, keep_cells=keep_cells)
    assert (parent >= 0).all() or keep_cells == "area"
    rules = {"stride": stride, "kernel": kernel, "padding": padding}
    index = check(cells.kernel_cells, cell, ptr, size, new, new_ptr, absent="zero", **rules)
    there = index < len(cell)
    row, _ = there.nonzero(as_tuple=True)
    lead = cell[index[there]] - new[row] * stride + padding
    assert ((lead >= 0) & (lead < kernel)).all()


@pytest.mark.parametrize("sizes", [SIZES, [(14, 14)] * 3], ids=["ragged", "alike"])
@pytest.mark.parametrize("per_side, centers", [(1, 1), (2, 2), (3, 2), (7, 3), (50, 2)])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_points_window_by_window(per_side, centers, density, sizes, monkeypatch):
    monkeypatch.setattr(cells, "TABLE", 10**6)
    order, counts, members = check(cells.window_order, *lattices(density, sizes), per_side, centers)
    assert sorted(order.tolist()) == list(range(len(order))) and int(counts.sum()) == len(members)


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("counts", [[1], [3, 5, 4], [1, 1, 30], [2, 90, 1, 7]])
def test_rows(counts, dtype, distinct):
    counts = torch.tensor(counts)
    members = torch.rand(int(counts.sum()), 4) < 0.5
    members[:, 2] = members[:, 0]  # the same center twice

    def fields(*args, **kwargs):
        plan = index_plan(*args, **kwargs)
        layout = (
            plan.partition_index,
            plan.valid,
            plan.reverse_index,
            plan.pool_weight,
            plan.center_valid,
            plan.packed.ptr,
            plan.packed.window,
        )
        return layout if plan.row_window is None else (*layout, plan.row_window)

    check(fields, torch.arange(len(members)), counts, members, dtype, distinct=distinct)


@pytest.mark.parametrize("density", [0.0, 0.15, 0.5, 1.0])
@pytest.mark.parametrize("sizes", [SIZES, [(14, 14)] * 3, [(50, 70)]], ids=["ragged", "alike", "large"])
def test_the_nearest_cell_that_stays_takes_the_points_of_one_that_goes(density, sizes, monkeypatch):
    monkeypatch.setattr(cells, "TABLE", 10**6)
    cell, ptr, size = lattices(density, sizes)
    new, new_ptr, count, parent = cells.coarse_cells(cell, ptr, size, 2, keep_cells="area")
    total, taken = check(cells.reassign_dropped, cell, ptr, size, 2, new, new_ptr, count, parent)
    assert torch.equal(total, torch.bincount(taken, minlength=len(new)))
    slot = check(cells.kernel_slots, cell, new, taken, 2)
    own = parent >= 0
    assert torch.equal(slot // 4, taken) and torch.equal(slot[own] % 4, (cell[own] % 2) @ torch.tensor([2, 1]))
    assert torch.equal(taken[parent >= 0], parent[parent >= 0])
    for b in range(len(sizes)):
        kept = new[new_ptr[b] : new_ptr[b + 1]]
        for n in range(int(ptr[b]), int(ptr[b + 1])):
            if parent[n] < 0:
                away = (kept - cell[n] // 2).square().sum(1)
                assert taken[n] == new_ptr[b] + away.argmin()


def test_large_lattices_are_not_tabled():
    """A lattice of 10^12 cells costs what its two points cost."""
    cell, ptr, size = torch.tensor([[3, 5], [10**6 - 1, 10**6 - 1]]), torch.tensor([0, 2]), torch.tensor([[10**6] * 2])
    new, new_ptr, count, parent = cells.coarse_cells(cell, ptr, size, 4, keep_cells="occupied")
    assert new.tolist() == [[0, 1], [249999, 249999]] and parent.tolist() == [0, 1] and count.tolist() == [1, 1]
    index = cells.kernel_cells(cell, ptr, size, new, new_ptr, stride=4, kernel=4, padding=0, absent="zero")
    assert index[0, 13] == 0 and index[1, 15] == 1 and (index == 2).sum() == 30
    assert cells.window_order(cell, ptr, size, 1000, 1)[1].tolist() == [1, 1]


@pytest.mark.parametrize("parent", [[0], [0, 2], [0, -1]])
def test_points_without_a_coarse_cell_have_no_slot(parent):
    with pytest.raises(ValueError, match="a point has no coarse cell|parent must be of these points"):
        cells.kernel_slots(torch.tensor([[0, 1], [2, 3]]), torch.tensor([[0, 0], [1, 1]]), torch.tensor(parent), 2)


@pytest.mark.parametrize("outside", [(-1, 0), (0, -1), (4, 0), (0, 4)])
def test_points_off_their_lattice(outside):
    lattice = torch.tensor([[0, 0], outside]), torch.tensor([0, 2]), torch.tensor([[4, 4]])
    with pytest.raises(ValueError, match="^a point lies on no cell of its lattice$"):
        cells.coarse_cells(*lattice, 2, keep_cells="occupied")
    with pytest.raises(ValueError, match="^a point lies on no cell of its lattice$"):
        cells.window_order(*lattice, 2, 2)
    with pytest.raises(ValueError, match="^a point lies on no cell of its lattice$"):
        one = torch.zeros(1, 2, dtype=torch.int64), torch.tensor([0, 1])
        cells.kernel_cells(*lattice, *one, stride=2, kernel=2, padding=0, absent="zero")


@pytest.mark.parametrize("ptr", [[0, 3], [1, 4], [0, 64000, 4], [0, 5, 4], [0, 4, 4]])
def test_ptr_of_other_points(ptr):
    cell, ptr, size = torch.zeros(4, 2, dtype=torch.int64), torch.tensor(ptr), torch.tensor([[2, 2]])
    calls = [lambda: cells.coarse_cells(cell, ptr, size, 2, keep_cells="occupied")]
    calls += [lambda: cells.window_order(cell, ptr, size, 1, 1)]
    rules = {"stride": 2, "kernel": 2, "padding": 0, "absent": "zero"}
    calls += [lambda: cells.kernel_cells(cell, ptr, size, cell[:1], torch.tensor([0, 1]), **rules)]
    calls += [lambda: cells.kernel_cells(cell, torch.tensor([0, 4]), size, cell[:1], ptr, **rules)]
    for call in calls:
        with pytest.raises(ValueError, match="^ptr must rise from 0 to the number of points$"):
            call()


def test_lattices_with_more_cells_than_integers():
    """Their number would wrap around to zero."""
    cell, size = torch.tensor([[5, 2**33 - 1]]), torch.tensor([[2**33, 2**33]])
    new, *_ = cells.coarse_cells(cell, torch.tensor([0, 1]), size, 2, keep_cells="occupied")
    assert new.tolist() == [[2, 2**32 - 1]]


@pytest.mark.parametrize("per_side, centers", [(0, 1), (-3, 2), (2, 0)])
def test_plans_without_windows_or_centers(per_side, centers):
    points = PointSet.from_images(torch.rand(1, 1, 4, 4))
    for layout in (points.layout, points.as_sparse().layout):
        with pytest.raises(ValueError, match=f"at least 1, got {per_side} and {centers}$"):
            layout.plan(points.pos, points.ptr, per_side, centers)


def test_more_points_than_cells():
    """Two points on each of four cells: no coarse cell is fuller than full."""
    cell = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat(2, 1)
    new, _, count, _ = check(
        cells.coarse_cells, cell, torch.tensor([0, 8]), torch.tensor([[2, 2]]), 2, keep_cells="area"
    )
    assert new.tolist() == [[0, 0]] and count.tolist() == [8]


def test_traces_hold_tensors_alone():
    cell, ptr, size = lattices(0.5)
    trace = torch.fx.experimental.proxy_tensor.make_fx(lambda c: cells.window_order(c, ptr, size, 2, 2)[0])(cell)
    assert torch.equal(trace(cell), cells.window_order(cell, ptr, size, 2, 2)[0])


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_compiled_it_keeps_the_same_cells(stride):
    torch.compiler.reset()
    args = lattices(0.5)
    with use_backend("torch"):
        expected = cells.coarse_cells(*args, stride, keep_cells="area")
        found = torch.compile(cells.coarse_cells, backend="eager")(*args, stride, keep_cells="area")
    torch.compiler.reset()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
