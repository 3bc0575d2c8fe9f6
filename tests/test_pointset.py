from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils import _pytree as pytree

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


# ---- construction -----------------------------------------------------------------------------------------------


def test_from_image_lists_pixels_row_by_row():
    image = torch.arange(2 * 3 * 4.0).view(2, 3, 4)
    points = PointSet.from_image(image)
    assert points.layout == Grid((3, 4)) and points.ptr.tolist() == [0, 12] and points.num_sets == 1
    assert points.feat[5].tolist() == [5, 17]  # row 1, column 1
    torch.testing.assert_close(points.pos[5], torch.tensor([1 / 2 - 0.5, 1 / 3 - 0.5]))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (3, 4), (13, 17)])
def test_inclusive_coordinates_reach_both_ends(size):
    pos = PointSet.from_image(torch.rand(1, *size)).pos.view(*size, 2)
    for axis, side in enumerate(size):
        line = pos.select(1 - axis, 0)[:, axis]
        expected = torch.arange(side) / (side - 1) - 0.5 if side > 1 else torch.tensor([-0.5])
        torch.testing.assert_close(line, expected)
    assert pos.isfinite().all()


def test_exclusive_coordinates_leave_out_the_far_end():
    pos = PointSet.from_image(torch.rand(1, 4, 5), coord_mode="exclusive").pos.view(4, 5, 2)
    torch.testing.assert_close(pos[:, 0, 0], torch.tensor([-0.5, -0.25, 0, 0.25]))
    torch.testing.assert_close(pos[0, :, 1], torch.tensor([-0.5, -0.3, -0.1, 0.1, 0.3]))
    assert PointSet.from_image(torch.rand(1, 1, 1), coord_mode="exclusive").pos.tolist() == [[-0.5, -0.5]]


def test_unknown_coord_mode():
    with pytest.raises(ValueError, match="coord_mode must be 'inclusive' or 'exclusive', got 'middle'"):
        PointSet.from_image(torch.rand(1, 4, 4), coord_mode="middle")


def test_kinds_of_images_agree():
    array = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    first = PointSet.from_image(array)
    assert first.feat.max() <= 1 and first.feat.dtype == torch.float32
    assert_same(first, PointSet.from_image(torch.from_numpy(array).permute(2, 0, 1)))
    assert_same(first, PointSet.from_image(Image.fromarray(array)))
    assert_same(first, PointSet.from_image(array.astype(np.float32) / 255))
    assert_same(first, PointSet.from_images([array]))
    assert_same(first, PointSet.from_images(torch.from_numpy(array).permute(2, 0, 1)[None]))


def test_mask_hides_pixels():
    image, mask = torch.rand(3, 5, 7), half(5, 7)
    points, whole = PointSet.from_image(image, mask), PointSet.from_image(image)
    visible = mask.flatten()
    assert torch.equal(points.feat, whole.feat[visible])
    assert torch.equal(points.pos, whole.pos[visible])  # coordinates are those of the whole lattice
    assert isinstance(points.layout, SparseGrid) and points.layout.size.tolist() == [[5, 7]]
    assert torch.equal(points.layout.cell, mask.nonzero())


@pytest.mark.parametrize("hidden", [float("nan"), float("inf"), 1e30])
def test_values_under_the_mask_do_not_matter(hidden):
    image, mask = torch.rand(3, 5, 7), half(5, 7)
    painted = torch.where(mask, image, hidden)
    normal = dict(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert_same(PointSet.from_image(painted, mask, **normal), PointSet.from_image(image, mask, **normal))


def test_mean_and_std():
    image = torch.rand(3, 4, 4)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.25, 2.0])
    expected = (image.permute(1, 2, 0).reshape(-1, 3) - mean) / std
    for points in (
        PointSet.from_image(image, mean=mean.tolist(), std=std.tolist()),
        PointSet.from_images(image[None], mean=mean.tolist(), std=std.tolist()),
        PointSet.from_images([image], mean=mean.tolist(), std=std.tolist()),
    ):
        torch.testing.assert_close(points.feat, expected)


def test_from_images_of_one_size_is_a_grid():
    images = torch.rand(3, 2, 4, 5)
    points = PointSet.from_images(images)
    assert points.layout == Grid((4, 5)) and points.ptr.tolist() == [0, 20, 40, 60]
    assert torch.equal(points.to_image(), images)
    assert_same(points, PointSet.from_images(list(images)))
    assert_same(points, PointSet.from_batch(images))


def test_from_images_of_many_sizes_or_with_masks_is_sparse():
    images = [torch.rand(2, 4, 5), torch.rand(2, 3, 3)]
    points = PointSet.from_images(images)
    assert isinstance(points.layout, SparseGrid) and points.ptr.tolist() == [0, 20, 29]
    assert points.layout.size.tolist() == [[4, 5], [3, 3]]
    masks = torch.stack([half(4, 5), half(4, 5)])
    both = PointSet.from_images(torch.rand(2, 2, 4, 5), masks)
    assert both.ptr.diff().tolist() == masks.sum((1, 2)).tolist()


def test_from_pixels_places_each_pixel():
    image = torch.rand(3, 6, 4)
    rows, cols = torch.tensor([5, 0, 2]), torch.tensor([1, 0, 3])
    points = PointSet.from_pixels(image[:, rows, cols].T, rows, cols, (6, 4))
    mask = torch.zeros(6, 4, dtype=torch.bool)
    mask[rows, cols] = True
    same = PointSet.from_image(image, mask)
    assert torch.equal(points.to_image(), same.to_image())
    order = torch.argsort(rows)
    assert torch.equal(points.pos[order], same.pos) and torch.equal(points.feat[order], same.feat)


def test_from_pixels_takes_bytes_lists_and_one_channel():
    points = PointSet.from_pixels(torch.tensor([255, 51], dtype=torch.uint8), [1, 0], [0, 2], (2, 3))
    torch.testing.assert_close(points.feat, torch.tensor([[1.0], [0.2]]))
    torch.testing.assert_close(points.pos, torch.tensor([[0.5, -0.5], [-0.5, 0.5]]))


def test_from_pixels_treats_values_as_from_image():
    image = torch.randint(0, 65536, (2, 3, 4)).to(torch.uint16)
    rows, cols = (i.flatten() for i in torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij"))
    values, kwargs = image.numpy().reshape(2, -1).T.copy(), dict(mean=(0.5, 0.4), std=(0.2, 0.3))
    points = PointSet.from_pixels(torch.from_numpy(values), rows, cols, (3, 4), **kwargs)
    same = PointSet.from_image(image, **kwargs)
    assert torch.equal(points.feat, same.feat) and torch.equal(points.pos, same.pos)


def test_from_pixels_does_not_pay_for_the_lattice():
    side = 2**30  # a coordinate for each cell would take exabytes
    points = PointSet.from_pixels(torch.rand(2, 1), [0, side - 1], [5, 7], (side, side))
    assert points.pos[:, 0].tolist() == [-0.5, 0.5]


PIXELS = dict(values=torch.rand(2, 3), rows=torch.tensor([0, 1]), cols=torch.tensor([1, 1]), size=(2, 2))
NAN = torch.full((3, 4, 4), float("nan"))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: PointSet.from_image(NAN), "from_image: image holds NaN or infinite values at 16 of 16 pixels"),
        (lambda: PointSet.from_image(NAN, torch.eye(4)), "the visible part of the image holds NaN .* at 4 of 4 pixels"),
        (lambda: PointSet.from_images(NAN[None]), "from_images: images holds NaN or infinite"),
        (lambda: PointSet.from_image(torch.rand(3, 4, 4), torch.ones(4, 5)), "mask is 4x5, the image is 4x4"),
        (lambda: PointSet.from_image(torch.rand(3, 4, 4), torch.zeros(4, 4)), "mask hides every pixel"),
        (lambda: PointSet.from_images([]), "from_images: the batch is empty"),
        (lambda: PointSet.from_images(torch.rand(0, 3, 4, 4)), "from_images: the batch is empty"),
        (lambda: PointSet.from_images([torch.rand(3, 4, 4)], [None, None]), "1 images but 2 masks"),
        (lambda: PointSet.from_images(torch.rand(1, 3, 4, 4), mean=(1, 2)), "mean has 2 values for 3 channels"),
        (lambda: PointSet.from_images(torch.rand(1, 3, 4, 4), std=(1, 2)), "std has 2 values for 3 channels"),
        (lambda: PointSet.from_batch(torch.rand(4, 4)), r"expected images \(B, C, H, W\) or clouds \(B, N, D\), got"),
        (lambda: PointSet.from_pixels(**PIXELS | dict(rows=torch.tensor([0, 2]))), r"pixel 1 at \(2, 1\) lies outside"),
        (
            lambda: PointSet.from_pixels(**PIXELS | dict(cols=torch.tensor([-1, 0]))),
            r"pixel 0 at \(0, -1\) lies outside",
        ),
        (lambda: PointSet.from_pixels(**PIXELS | dict(rows=torch.tensor([1, 1]))), "1 pixels are given more than once"),
        (lambda: PointSet.from_pixels(**PIXELS | dict(rows=torch.tensor([0]))), r"got \(2, 3\), \(1,\), \(2,\)"),
        (lambda: PointSet.from_pixels(torch.rand(0, 3), [], [], (2, 2)), "no pixel given"),
        (lambda: PointSet.from_pixels(**PIXELS | dict(values=NAN[:2, 0, :3])), "values holds NaN or infinite"),
        (lambda: PointSet.from_pixels(**PIXELS | dict(values=torch.ones(2, 3, dtype=torch.int32))), "got torch.int32"),
        (lambda: PointSet.from_pixels(**PIXELS | dict(cols=torch.tensor([0.0, 1.5]))), "cols must be integers"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


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
        (dict(feat=torch.ones(4, 5, dtype=torch.int64)), "must be floating point"),
        (dict(layout=Grid((2, 3))), "1 grids of 2x3 have 6 points, got 4"),
        (
            dict(layout=SparseGrid(torch.zeros(3, 2), torch.ones(1, 2))),
            r"cells \(4, 2\) and sizes \(1, 2\), got \(3, 2\)",
        ),
    ],
)
def test_fields_must_fit(fields, message):
    good = dict(pos=torch.rand(4, 2), feat=torch.rand(4, 5), ptr=torch.tensor([0, 4]))
    PointSet(**good)
    with pytest.raises(ValueError, match=message):
        PointSet(**good | fields)


# ---- views ------------------------------------------------------------------------------------------------------


def test_batch_names_the_set_of_each_point(ragged):
    expected = [b for b, n in enumerate(ragged.ptr.diff().tolist()) for _ in range(n)]
    assert ragged.batch.tolist() == expected


def test_padded(ragged):
    dense, real = ragged.padded(fill=-7.0)
    assert real.sum(1).tolist() == ragged.ptr.diff().tolist() and dense.shape[:2] == real.shape
    assert torch.equal(dense[real], ragged.feat) and (dense[~real] == -7).all()
    for row, part in zip(dense, ragged.unbind(), strict=True):
        assert torch.equal(row[: len(part.feat)], part.feat)


def test_to_image_of_a_masked_image():
    image, mask = torch.rand(3, 5, 7), half(5, 7)
    assert torch.equal(PointSet.from_image(image, mask).to_image(fill=9.0)[0], torch.where(mask, image, 9.0))


def test_to_image_of_many_sizes_is_a_list():
    images = [torch.rand(3, 5, 7), torch.rand(3, 2, 2)]
    assert all(torch.equal(a, b) for a, b in zip(PointSet.from_images(images).to_image(), images, strict=True))


def test_to_image_needs_a_lattice():
    points = PointSet(torch.rand(4, 3), torch.rand(4, 1), torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="no lattice"):
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
