"""Images as sets: `PointSet.from_image`, `from_images`, `from_batch` and `from_pixels`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix import PointSet
from pointmix.layouts.grid import Grid
from pointmix.layouts.sparse import SparseGrid
from tests.test_pointset import assert_same, half


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


@pytest.mark.parametrize("batch", [torch.rand(3, 2, 4, 5), torch.rand(3, 4, 2)], ids=["images", "clouds"])
def test_from_batch_with_coordinates_as_features(batch):
    points = PointSet.from_batch(batch)
    both = PointSet.from_batch(batch, coords=True)
    assert_same(both, points.with_feat(torch.cat([points.feat, points.pos], dim=1)))


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
    side = 2**24  # a coordinate for each cell would take petabytes
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
