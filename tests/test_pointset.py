"""Sets of points: what must fit, views, sets of sets, and how they pass through torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils.data._utils.pin_memory import pin_memory as pin_batch

from pointmix import PointSet
from pointmix.layouts.cloud import Cloud
from pointmix.layouts.grid import Grid
from pointmix.layouts.sparse import SparseGrid


def assert_same(a: PointSet, b: PointSet) -> None:
    """Equal bit for bit, layout and all."""
    mine, spec = pytree.tree_flatten(a)
    other, other_spec = pytree.tree_flatten(b)
    assert spec == other_spec
    for x, y in zip(mine, other, strict=True):
        assert x is y is None or (x.dtype == y.dtype and torch.equal(x, y))


def half(height: int, width: int) -> torch.Tensor:
    mask = torch.rand(height, width) < 0.5
    mask[0, 0] = True
    return mask


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(pos=torch.rand(3, 2)), r"pos and feat must be \(N, D\) and \(N, C\), got \(3, 2\) and \(4, 5\)"),
        (dict(feat=torch.rand(4)), r"pos and feat must be .* got \(4, 2\) and \(4,\)"),
        (dict(ptr=torch.tensor([0])), r"ptr must be \(B \+ 1,\) int64 .* got \(1,\)"),
        (dict(ptr=torch.tensor([0, 4], dtype=torch.int32)), r"ptr must be .* got \(2,\) torch.int32"),
        (dict(ptr=torch.tensor([0, 3])), r"ptr must rise from 0 to 4 with a point in every set, got \[0, 3\]"),
        (dict(ptr=torch.tensor([1, 4])), r"ptr must rise from 0 to 4"),
        (dict(ptr=torch.tensor([0, 2, 2, 4])), r"ptr must rise from 0 to 4 .* got \[0, 2, 2, 4\]"),
        (
            dict(ptr=torch.tensor([0, 0, 1, 1])),
            r"got \[0, 0, 1, 1\]; if this is a batch .*batch.bincount\(\).cumsum",
        ),
        (dict(ptr=[0.0, 4.0]), r"ptr must be .* got \(2,\) torch.float32"),
        (dict(ptr=["a"]), "expected numbers in a regular shape"),
        (dict(ptr=None), "pos and ptr must be tensors, got Tensor and NoneType"),
        (dict(pos=np.ones((4, 2))), "pos and ptr must be tensors, got ndarray and Tensor; from_points takes arrays"),
        (dict(feat=np.ones((4, 2))), "feat must be a tensor; from_points takes arrays"),
        (dict(feat=torch.ones(4, 5, dtype=torch.int64)), "must be floating point"),
        (dict(layout=Grid((2, 3))), "1 grids of 2x3 have 6 points, got 4"),
        (
            dict(layout=SparseGrid(torch.zeros(3, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.int64))),
            r"cells \(4, 2\) and sizes \(1, 2\), got \(3, 2\)",
        ),
    ],
)
def test_fields_must_fit(fields, message):
    good = dict(pos=torch.rand(4, 2), feat=torch.rand(4, 5), ptr=torch.tensor([0, 4]))
    PointSet(**good)
    with pytest.raises(ValueError, match=message):
        PointSet(**good | fields)


def test_ptr_may_be_a_list():
    pos, feat, batch = torch.rand(4, 2), torch.rand(4, 5), torch.tensor([0, 0, 0, 1])
    expected = PointSet(pos, feat, torch.tensor([0, 3, 4]))
    assert_same(PointSet(pos, feat, [0, 3, 4]), expected)
    assert_same(PointSet(pos, feat, (0, 3, 4)), expected)
    advised = torch.nn.functional.pad(batch.bincount().cumsum(0), (1, 0))
    assert_same(PointSet(pos, feat, advised), expected)


# ---- views ------------------------------------------------------------------------------------------------------


def test_batch_names_the_set_of_each_point(ragged):
    expected = [b for b, n in enumerate(ragged.ptr.diff().tolist()) for _ in range(n)]
    assert ragged.batch.tolist() == expected


def test_to_image_of_a_masked_image():
    image, mask = torch.rand(3, 5, 7), half(5, 7)
    assert torch.equal(PointSet.from_image(image, mask).to_image(fill=9.0)[0], torch.where(mask, image, 9.0))


def test_to_image_of_many_sizes_is_a_list():
    images = [torch.rand(3, 5, 7), torch.rand(3, 2, 2)]
    assert all(torch.equal(a, b) for a, b in zip(PointSet.from_images(images).to_image(), images, strict=True))


def test_to_image_needs_a_lattice():
    points = PointSet(torch.rand(4, 3), torch.rand(4, 1), torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="not on a grid"):
        points.to_image()


def test_as_sparse_changes_the_layout_only():
    images = torch.rand(2, 3, 4, 5)
    points = PointSet.from_images(images)
    sparse = points.as_sparse()
    assert isinstance(sparse.layout, SparseGrid) and torch.equal(sparse.to_image(), images)
    assert sparse.as_sparse().layout is sparse.layout
    free = PointSet(torch.rand(4, 3), torch.rand(4, 1), torch.tensor([0, 4]))
    assert free.as_sparse().layout == Cloud()


@pytest.mark.parametrize("sparse", [False, True])
def test_with_feat(sparse):
    points = PointSet.from_images(torch.rand(2, 3, 4, 5))
    points = points.as_sparse() if sparse else points
    other = points.with_feat(torch.zeros(40, 6))
    assert other.feat.shape == (40, 6) and other.pos is points.pos and other.layout is points.layout
    with pytest.raises(ValueError, match="pos and feat"):
        points.with_feat(torch.zeros(39, 6))


def test_repr_says_what_it_holds(ragged):
    assert repr(PointSet.from_images(torch.rand(2, 3, 4, 5))) == (
        "PointSet(2 sets, 20 to 20 points each, 3 channels, grid 4x5, float32, cpu)"
    )
    most = int(ragged.ptr.diff().max())
    assert repr(ragged) == (
        f"PointSet(3 sets, 1 to {most} points each, 3 channels, some cells of 3 different sizes, float64, cpu)"
    )
    one = PointSet.from_image(torch.rand(1, 3, 3), torch.eye(3))
    assert repr(one) == "PointSet(1 set, 3 points, 1 channels, some cells of 3x3, float32, cpu)"
    assert "cloud" in repr(PointSet(torch.rand(4, 3), torch.rand(4, 1), torch.tensor([0, 4])))


# ---- sets of sets -----------------------------------------------------------------------------------------------


def test_cat_undoes_unbind(ragged):
    assert_same(PointSet.cat(ragged.unbind()), ragged)
    grid = PointSet.from_images(torch.rand(3, 2, 4, 5))
    assert all(part.layout == Grid((4, 5)) for part in grid.unbind())
    assert_same(PointSet.cat(grid.unbind()), grid)
    free = PointSet(torch.rand(7, 3), torch.rand(7, 1), torch.tensor([0, 3, 7]))
    assert [len(part.feat) for part in free.unbind()] == [3, 4]
    assert_same(PointSet.cat(free.unbind()), free)


def test_cat_of_grids_of_two_sizes_and_of_grid_with_sparse():
    a, b = PointSet.from_images(torch.rand(2, 3, 4, 5)), PointSet.from_image(torch.rand(3, 2, 2))
    assert_same(PointSet.cat([a, b]), PointSet.cat([a.as_sparse(), b.as_sparse()]))
    assert_same(PointSet.cat([a, b.as_sparse()]), PointSet.cat([a.as_sparse(), b]))
    same_size = PointSet.cat([a, PointSet.from_image(torch.rand(3, 4, 5), torch.eye(5)[:4])])
    assert isinstance(same_size.layout, SparseGrid)


@pytest.mark.parametrize(
    "sets, message",
    [
        ([], "cat: no sets given"),
        ([torch.rand(3, 2, 2), torch.rand(4, 2, 2)], r"sets differ .*\[\(2, 3\), \(2, 4\)\]"),
        ([torch.rand(3, 2, 2), None], "sets differ in kind"),
    ],
)
def test_cat_of_what_does_not_fit(sets, message):
    free = PointSet(torch.rand(4, 2), torch.rand(4, 3), torch.tensor([0, 4]))
    with pytest.raises(ValueError, match=message):
        PointSet.cat([free if s is None else PointSet.from_image(s) for s in sets])


@pytest.mark.parametrize("sparse", [False, True])
def test_subset_of_a_lattice_is_the_masked_image(sparse):
    images, masks = torch.rand(2, 3, 4, 5), torch.stack([half(4, 5), half(4, 5)])
    whole = PointSet.from_images(images)
    expected = PointSet.from_images(images, masks)
    whole = whole.as_sparse() if sparse else whole
    assert_same(whole.subset(masks.flatten()), expected)
    assert_same(whole.subset(masks.flatten().nonzero().squeeze(1)), expected)


def test_subset_by_index_keeps_sets_together_and_the_order_within():
    points = PointSet(torch.rand(7, 3), torch.arange(7.0)[:, None], torch.tensor([0, 3, 7]))
    part = points.subset(torch.tensor([5, 2, 3, 0]))
    assert part.feat.flatten().tolist() == [2, 0, 5, 3] and part.ptr.tolist() == [0, 2, 4]
    assert torch.equal(part.pos, points.pos[[2, 0, 5, 3]]) and part.layout == Cloud()


@pytest.mark.parametrize(
    "index, message",
    [
        (torch.ones(6, dtype=torch.bool), r"mask must be \(7,\), got \(6,\)"),
        (torch.tensor([0, 0, 5]), "must name different points of 0 to 6"),
        (torch.tensor([0, 7]), "must name different points of 0 to 6"),
        (torch.tensor([-1, 0]), "must name different points of 0 to 6"),
        (torch.tensor([0, 1]), "no point left in set 1"),
        (torch.tensor([], dtype=torch.int64), "no point left in set 0"),
    ],
)
def test_subset_of_what_is_not_there(index, message):
    points = PointSet(torch.rand(7, 3), torch.rand(7, 1), torch.tensor([0, 3, 7]))
    with pytest.raises(ValueError, match=message):
        points.subset(index)


def test_to_casts_floats_and_leaves_integers(ragged):
    moved = ragged.to(torch.float32)
    assert moved.feat.dtype == moved.pos.dtype == torch.float32
    assert moved.ptr.dtype == moved.layout.cell.dtype == moved.layout.size.dtype == torch.int64
    meta = ragged.to("meta")
    assert {t.device.type for t in pytree.tree_leaves(meta)} == {"meta"}
    both = ragged.to("meta", torch.bfloat16)
    assert both.feat.dtype == torch.bfloat16 and both.layout.cell.is_meta
    assert_same(ragged.to("cpu"), ragged)


@pytest.mark.parametrize("kind", ["grid", "sparse", "free"])
def test_pinned_is_every_tensor(kind, monkeypatch):
    """On machines without a GPU nothing can be pinned, so copies stand for pinned memory."""
    pinned = []

    def pin(tensor: torch.Tensor, *_) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    points = KINDS[kind]()
    for found in (points.pin_memory(), pin_batch((points, torch.arange(2), []))[0]):
        leaves = pytree.tree_leaves(found)
        assert_same(found, points)
        assert len(leaves) >= 3 and all(any(leaf is tensor for tensor in pinned) for leaf in leaves)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_memory_is_pinned(ragged):
    assert all(t.is_pinned() for t in pytree.tree_leaves(ragged.pin_memory()))
    assert_same(ragged.pin_memory().to("cuda", non_blocking=True).to("cpu"), ragged)


# ---- pytree, compile, export ------------------------------------------------------------------------------------

KINDS = {
    "grid": lambda: PointSet.from_images(torch.rand(2, 3, 4, 5)),
    "sparse": lambda: PointSet.from_images(torch.rand(2, 3, 4, 5), [torch.eye(5)[:4], None]),
    "free": lambda: PointSet(torch.rand(4, 3), torch.rand(4, 2), torch.tensor([0, 4])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pytree_round_trip(kind):
    points = KINDS[kind]()
    leaves, spec = pytree.tree_flatten(points)
    assert_same(pytree.tree_unflatten(leaves, spec), points)
    assert_same(pytree.tree_unflatten(leaves, pytree.treespec_loads(pytree.treespec_dumps(spec))), points)
    names = pytree.tree_map(lambda _: "leaf", points)  # placeholders are no tensors
    assert names.feat == "leaf"


def double_and_center(points: PointSet) -> PointSet:
    return points.with_feat(torch.cat([2 * points.feat, points.pos - points.pos.mean(0)], dim=1))


@pytest.mark.parametrize("kind", KINDS)
def test_compiles(kind):
    points = KINDS[kind]()
    compiled = torch.compile(double_and_center, fullgraph=True, backend="aot_eager")
    assert_same(compiled(points), double_and_center(points))


class DoubleAndCenter(torch.nn.Module):
    def forward(self, points: PointSet) -> PointSet:
        return double_and_center(points)


@pytest.mark.parametrize("kind", KINDS)
def test_exports(kind):
    points = KINDS[kind]()
    program = torch.export.export(DoubleAndCenter(), (points,))
    assert_same(program.module()(points), double_and_center(points))
