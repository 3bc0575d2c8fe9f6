"""Augmentation of images with labels: every label stays on its pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.data.dataset import seed_all
from pointmix.data.segment.images.crops import is_varied, varied_crop
from pointmix.data.segment.images.transforms import eval_transform, train_transform
from pointmix.data.segment.join import join_batches
from pointmix.data.segment.sample import IGNORE, LabeledImage
from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.layouts.grid import Grid
from pointmix.layouts.sparse import SparseGrid
from pointmix.pointset import PointSet
from tests.data.segment.images.files import image_config

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "photometric": False, "cat_max_ratio": 1.0, "hflip": 0.0}


def painted(size=(40, 60), classes=5, cell=4, depth=False) -> LabeledImage:
    """An image whose color is its label: the red channel is 50 times the label, in squares of random labels."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, classes, (size[0] // cell, size[1] // cell))
    label = coarse.repeat(cell, 0).repeat(cell, 1)
    pixels = np.stack([label * 50, label * 0, 255 - label * 50], axis=2).astype(np.uint8)
    meters = np.where(label == 0, 0, label + 0.5).astype(np.float32) if depth else None
    return LabeledImage(Image.fromarray(pixels), label, depth=meters)


def transformed(sample, seed=0, kind=train_transform, **settings):
    transform = kind(image_config("folder", **{**PLAIN, **settings}))
    seed_all(seed)
    return transform(sample)


def test_a_whole_image_at_its_own_size_in_evaluation():
    sample = painted()
    batch = transformed(sample, kind=eval_transform, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    assert batch.points.layout == Grid((40, 60)) and batch.category is None
    assert (batch.labels.view(40, 60).numpy() == sample.label).all()
    expected = PointSet.from_image(sample.image, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    torch.testing.assert_close(batch.points.feat, expected.feat)
    torch.testing.assert_close(batch.points.pos, expected.pos)


HALF_HIDDEN = {"keep_ratio": (0.2, 0.8), "mask": "any"}


@pytest.mark.parametrize("settings", [{}, HALF_HIDDEN, {"rgbd": "lattice"}, {"short_side": 50, "crop_size": (48, 64)}])
def test_labels_move_with_their_pixels(settings):
    label = np.random.default_rng(0).integers(0, 8, (8, 11)).repeat(12, 0).repeat(12, 1)
    bits = label[..., None] >> np.arange(3) & 1  # of the label: red, green and blue
    depth = np.where(label == 2, 0, label + 0.5).astype(np.float32) if "rgbd" in settings else None
    sample = LabeledImage(Image.fromarray((bits * 255).astype(np.uint8)), label, depth=depth)

    def wrong(feat, labels):
        """How many labeled pixels have the color of one label, unmixed by the interpolation, and another as label."""
        clear = ((feat - 0.5).abs() > 0.4) & (labels != IGNORE)[:, None]
        assert clear[labels != IGNORE].float().mean() > 0.3
        return int(((feat > 0.5) != (labels[:, None] >> torch.arange(3) & 1).bool())[clear].sum())

    settings = {"crop_size": (64, 64), "scale_range": (0.5, 2.0), "hflip": 0.5, "cat_max_ratio": 0.75, **settings}
    found = dict.fromkeys([(0, 1), (0, -1), (1, 0), (-1, 0)], 0)
    for seed in range(200):
        points, labels, _ = transformed(sample, seed, **settings)
        assert wrong(points.feat[:, :3], labels) == 0
        if isinstance(points.layout, Grid):
            for shift in found:
                found[shift] += wrong(points.feat, labels.view(points.layout.size).roll(shift, (0, 1)).flatten()) > 0
    assert not isinstance(points.layout, Grid) or min(found.values()) > 100  # the test sees a shift by a pixel


def test_flipping_mirrors_image_labels_and_depth():
    sample = painted(depth=True)
    plain, flipped = (
        transformed(sample, crop_size=(40, 60), scale_range=(1, 1), hflip=p, depth_mean=0.0) for p in (0.0, 1.0)
    )
    assert (flipped.points.feat.view(40, 60, 4).flip(1) == plain.points.feat.view(40, 60, 4)).all()
    assert (flipped.labels.view(40, 60).flip(1) == plain.labels.view(40, 60)).all()


def test_padding_is_the_mean_color_and_ignored():
    batch = transformed(painted((20, 24)), crop_size=(32, 32), scale_range=(1, 1), mean=(0.5,) * 3)
    labels, feat = batch.labels.view(32, 32), batch.points.feat.view(32, 32, 3)
    assert (labels[:20, :24] >= 0).all() and (labels[20:] == IGNORE).all() and (labels[:, 24:] == IGNORE).all()
    assert (feat[20:] == 0).all() and (feat[:, 24:] == 0).all() and (feat[:20, :24] != 0).any()


def test_short_side_before_the_random_scale():
    batch = transformed(painted((20, 28)), crop_size=(64, 64), short_side=40, scale_range=(1, 1))
    labels = batch.labels.view(64, 64)
    assert (labels[:40, :56] >= 0).all() and (labels[40:] == IGNORE).all() and (labels[:, 56:] == IGNORE).all()


def test_scales_cover_their_range():
    sample, seen = painted((40, 40)), []
    for seed in range(200):
        labels = transformed(sample, seed, crop_size=(100, 100), scale_range=(0.5, 2.0)).labels.view(100, 100)
        seen.append(int((labels[:, 0] >= 0).sum()))
    assert 20 <= min(seen) < 24 and 76 < max(seen) <= 80 and abs(np.mean(seen) - 50) < 4


def test_crops_reach_every_pixel():
    sample = painted((12, 16))
    size = torch.arange(12 * 16).view(12, 16)
    seen = set()
    for seed in range(300):
        seed_all(seed)
        crop = varied_crop(torch.from_numpy(sample.label), (5, 6), 1.0, cat_max_ratio=1.0)
        assert crop.of(size).shape == (5, 6) and crop[4:] == (5, 6)
        seen |= set(crop.of(size).flatten().tolist())
    assert len(seen) == 12 * 16


def test_one_class_does_not_cover_a_crop():
    label = torch.zeros(64, 64, dtype=torch.long)
    label[:16] = 1  # a quarter

    def covered(ratio):
        shares = []
        for seed in range(60):
            seed_all(seed)
            part = varied_crop(label, (16, 16), 1.0, cat_max_ratio=ratio).of(label)
            shares.append(max((part == 0).float().mean().item(), (part == 1).float().mean().item()))
        return np.mean(np.array(shares) >= 0.75)

    assert covered(1.0) > 0.6 and covered(0.75) < 0.4


def test_ignored_pixels_are_no_class_of_a_crop():
    one, two = (torch.tensor([-1] * 60 + [1] * 30 + [last] * 10).view(10, 10) for last in (1, 2))
    assert not is_varied(one, 0.9)
    assert is_varied(two, 0.8) and not is_varied(two, 0.75)  # 30 of 40 labeled pixels


def test_a_lattice_of_one_pixel_is_not_hidden():
    sample = painted()
    depth = np.zeros((40, 60), np.float32)
    depth[3, 4] = 2
    for seed in range(20):
        settings = {"rgbd": "lattice", "keep_ratio": 0.1, "mask": "pixels", "crop_size": (40, 60)}
        batch = transformed(LabeledImage(sample.image, sample.label, depth=depth), seed, eval_transform, **settings)
        assert batch.labels.tolist() == [sample.label[3, 4]]


def test_a_crop_of_ignored_pixels_is_drawn_again():
    label = torch.full((64, 64), IGNORE)
    label[20:40, 20:30], label[20:40, 30:40] = 0, 1
    for seed in range(20):
        seed_all(seed)
        assert (varied_crop(label, (24, 24), 1.0, cat_max_ratio=0.9).of(label) >= 0).any()


# ---- colors -------------------------------------------------------------------------------------------------------


def test_colors_are_distorted_in_training_only():
    sample = painted()
    colors = {"photometric": True, "crop_size": (40, 60), "scale_range": (1, 1)}
    plain = transformed(sample, kind=eval_transform, **colors).points.feat
    assert any((transformed(sample, seed, **colors).points.feat != plain).any() for seed in range(3))
    assert (transformed(sample, 7, **colors).labels.view(40, 60).numpy() == sample.label).all()


def test_gray_images():
    batch = transformed(painted(), in_chans=1, mean=(0.0,), std=(1.0,), photometric=True, crop_size=(16, 16))
    assert batch.points.feat.shape == (256, 1)


# ---- depth and masks ----------------------------------------------------------------------------------------------


def test_depth_is_one_more_channel_and_does_not_bleed():
    sample = painted(depth=True)
    for seed in range(5):
        batch = transformed(sample, seed, crop_size=(32, 32), scale_range=(0.5, 2.0), depth_mean=1.0, depth_std=2.0)
        depth = torch.where(batch.labels > 0, (batch.labels + 0.5 - 1) / 2, 0.0)
        assert (batch.points.feat[:, 3] == depth).all()  # also where labels of different depth are neighbors


@pytest.mark.parametrize("kind", [train_transform, eval_transform])
def test_pixels_without_depth_are_absent_from_the_lattice(kind):
    sample = painted(depth=True)
    batch = transformed(sample, kind=kind, rgbd="lattice", crop_size=(64, 64), scale_range=(1, 1))
    assert isinstance(batch.points.layout, SparseGrid) and (batch.labels > 0).all()
    assert len(batch.labels) == (sample.label > 0).sum()
    size = (64, 64) if kind is train_transform else (40, 60)
    assert batch.points.layout.size.tolist() == [list(size)]
    row, col = batch.points.layout.cell.unbind(1)
    assert (batch.labels.numpy() == sample.label[row, col]).all()
    whole = transformed(sample, kind=kind, crop_size=(64, 64), scale_range=(1, 1))
    assert (batch.points.feat == whole.points.feat.view(*size, 4)[row, col]).all()
    assert (batch.points.pos == whole.points.pos.view(*size, 2)[row, col]).all()


def test_a_lattice_crop_has_a_pixel_with_depth():
    depth = np.zeros((60, 60), dtype=np.float32)
    depth[50, 7] = 1.0
    sample = LabeledImage(Image.new("RGB", (60, 60)), np.zeros((60, 60), dtype=np.int64), depth=depth)
    for seed in range(20):
        batch = transformed(sample, seed, rgbd="lattice", crop_size=(8, 8), scale_range=(1, 1))
        assert len(batch.labels) == 1
    depth[:] = 0
    for kind in (train_transform, eval_transform):
        with pytest.raises(UnreadableSample, match="depth"):
            transformed(sample, kind=kind, rgbd="lattice", crop_size=(8, 8))


@pytest.mark.parametrize("kind", [train_transform, eval_transform])
def test_half_of_the_pixels_hidden(kind):
    sample = painted()
    batch = transformed(sample, kind=kind, keep_ratio=0.5, mask_patch=4, crop_size=(40, 60), scale_range=(1, 1))
    assert isinstance(batch.points.layout, SparseGrid) and len(batch.labels) == 40 * 60 // 2
    row, col = batch.points.layout.cell.unbind(1)
    assert (batch.labels.numpy() == sample.label[row, col]).all()
    assert (batch.points.feat[:, 0] * 255 / 50 - batch.labels).abs().max() < 0.01


def test_hidden_pixels_and_pixels_without_depth():
    sample = painted(depth=True)
    batch = transformed(sample, kind=eval_transform, rgbd="lattice", keep_ratio=0.5, mask="pixels")
    assert 0.4 * (sample.label > 0).sum() < len(batch.labels) < 0.6 * (sample.label > 0).sum()
    assert (batch.labels > 0).all()


def test_labels_of_another_size_are_refused():
    sample = painted()
    with pytest.raises(BadMask, match="labels are 60x40, the image is 40x60"):
        transformed(LabeledImage(sample.image, sample.label.T), kind=eval_transform)


# ---- batches ------------------------------------------------------------------------------------------------------


def test_crops_of_one_size_join_to_a_grid():
    items = [transformed(painted(), seed, crop_size=(16, 24)) for seed in range(3)]
    batch = join_batches(items)
    assert batch.points.layout == Grid((16, 24)) and batch.points.num_sets == 3
    assert (batch.labels == torch.cat([item.labels for item in items])).all() and batch.category is None
    assert join_batches(items[:1]) is items[0]


def test_images_of_different_sizes_join_to_a_sparse_grid():
    items = [transformed(painted(size), kind=eval_transform) for size in ((8, 12), (12, 8))]
    batch = join_batches(items)
    assert isinstance(batch.points.layout, SparseGrid) and batch.points.layout.size.tolist() == [[8, 12], [12, 8]]
    assert len(batch.labels) == 192


def test_categories_are_joined():
    items = [transformed(painted(), crop_size=(8, 8))._replace(category=torch.tensor([c])) for c in (3, 1)]
    assert join_batches(items).category.tolist() == [3, 1]
    with pytest.raises(ValueError, match="category"):
        join_batches([items[0], items[1]._replace(category=None)])
