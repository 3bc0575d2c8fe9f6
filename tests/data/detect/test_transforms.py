from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.join import join_items
from pointmix.data.detect.resolve import resolve
from pointmix.data.detect.transforms import DetectItem, EvalTransform, TrainTransform, fitted
from pointmix.layouts.grid import Grid
from pointmix.layouts.sparse import SparseGrid
from tests.data.detect.toy import image_of, objects_of

SIZE = (20, 30)
BOXES = [[2, 4, 10, 12], [15, 1, 28, 19]]


def config(**settings):
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "short_side": 20, "max_side": 100}
    return resolve(DetectDataConfig(source="toy_objects", **plain | settings))


def sample(boxes=BOXES, size=SIZE, **values):
    return image_of(objects_of(boxes, size=size, **values), size)


def train(masks=True, other=None, given=None, **settings):
    return TrainTransform(config(**settings), masks)(given or sample(), other)


@pytest.mark.parametrize(
    "size, expected",
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((400, 1000), (533, 1333)), ((1, 5000), (1, 1333))],
)
def test_the_size_of_a_resized_image(size, expected):
    assert fitted(size, 800, 1333) == expected


def white(item):
    """Corners of the white pixels."""
    rows, cols = (item.image[0] > 0.5).nonzero().T
    return torch.tensor([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("settings", [{"hflip": 1.0}, {"train_short_sides": (40, 60)}, {"hflip": 0.5}])
def test_image_boxes_and_masks_move_together(settings):
    for _ in range(8):
        item = train(given=sample([[3, 5, 21, 15]]), **settings)
        assert (white(item) - item.target.boxes[0]).abs().max() <= 0.5
        mask = item.target.masks[0].bool()
        assert mask.shape == item.image.shape[1:] and ((item.image[0] > 0.5) == mask).float().mean() > 0.99


def test_short_sides_are_drawn_for_each_image():
    sizes = {tuple(train(train_short_sides=(10, 20, 40), max_side=45).image.shape[1:]) for _ in range(30)}
    assert sizes == {(10, 15), (20, 30), (30, 45)}


def test_large_scale_jitter():
    settings = {"jitter_scale": (0.5, 2.0), "crop_size": (32, 48)}
    seen = []
    for _ in range(40):
        item = train(given=sample([[8, 4, 22, 16]]), **settings)
        height, width = item.image.shape[1:]
        assert height <= 32 and width <= 48
        seen.append((height, width))
        for box, mask in zip(item.target.boxes, item.target.masks, strict=True):
            assert box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
            assert (white(item) - box).abs().max() <= 1.5 and mask.any()
    assert (32, 48) in seen and min(height for height, _ in seen) < 22


def test_crops_without_an_object_are_drawn_again(monkeypatch):
    settings = {"jitter_scale": (2.0, 2.0), "crop_size": (20, 30), "hflip": 0.0}

    def shares(boxes, **more):
        found = [len(train(given=sample(boxes), **settings, **more).target.labels) for _ in range(40)]
        return sum(number > 0 for number in found) / 40

    assert shares([[13, 8, 16, 11]]) == 1.0  # one of ten holds it, of which a quarter of crops have a part
    assert shares([[0, 0, 3, 3]], keep_empty=True) < 0.7
    drawn, crop = [], TrainTransform._crop
    monkeypatch.setattr(TrainTransform, "_crop", lambda self, size: drawn.append(size) or crop(self, size))
    assert shares([]) == 0.0 and len(drawn) == 40


def test_colors_change_and_boxes_do_not():
    colored = sample()
    colored = type(colored)(Image.fromarray(np.full((*SIZE, 3), (90, 140, 60), np.uint8)), colored.objects, 0)
    plain = [train(given=colored, hflip=0.0).image for _ in range(2)]
    assert torch.equal(*plain)
    changed = [train(given=colored, hflip=0.0, photometric=True) for _ in range(6)]
    assert len({item.image[:, 0, 0].sum().item() for item in changed}) > 3
    assert all(item.target.boxes.tolist() == BOXES for item in changed)
    normalized = train(given=colored, hflip=0.0, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 2.0)).image[:, 0, 0]
    expected = [(value / 255 - mean) / std for value, mean, std in ((90, 0.1, 0.5), (140, 0.2, 0.5), (60, 0.3, 2))]
    torch.testing.assert_close(normalized, torch.tensor(expected))


def test_gray_images():
    item = train(in_chans=1, mean=(0.5,), std=(0.5,), photometric=True)
    assert item.image.shape == (1, *SIZE)


def test_objects_of_another_image_are_pasted():
    other, seen = sample([[12, 12, 18, 18]], labels=[2]), 0
    for _ in range(20):
        item = train(other=other, given=sample([[0, 0, 4, 4]]), hflip=0.0)
        assert len(item.target.labels) in (1, 2)
        seen += len(item.target.labels) == 2
        assert (item.image[0, 12:18, 12:18] == (len(item.target.labels) == 2)).all()
    assert 0 < seen < 20


def test_evaluation_resizes_alone_and_keeps_the_truth():
    given = sample(crowd=[False, True])
    item = EvalTransform(config(short_side=40, keep_ratio=1.0), True)(given, "a.png")
    assert item.image.shape == (3, 40, 60) and item.target is None
    assert item.truth.objects is given.objects and item.truth.size == SIZE and item.truth.name == "a.png"
    assert EvalTransform(config(), False)(given, "a.png").truth.objects.masks is None
    alone = EvalTransform(config(short_side=40)).image(given.image)
    assert torch.equal(alone.image, item.image) and alone.truth is None


def test_a_batch_is_padded_to_one_lattice():
    small, large = train(hflip=0.0), train(short_side=40, hflip=0.0)
    batch = join_items([small, large], multiple=32)
    assert isinstance(batch.points.layout, Grid) and batch.sizes.tolist() == [[20, 30], [40, 60]]
    images = batch.points.to_image()
    assert images.shape == (2, 3, 64, 64)
    assert torch.equal(images[0, :, :20, :30], small.image) and images[0].sum() == small.image.sum()
    assert batch.targets == [small.target, large.target] and batch.truths is None
    assert join_items([small], multiple=1).points.to_image().shape == (1, 3, 20, 30)
    assert join_items([small], multiple=8, least=(60, 20)).points.to_image().shape == (1, 3, 64, 32)


def test_hidden_pixels_and_padding_are_absent():
    items = [train(keep_ratio=0.5, mask_patch=4), train(keep_ratio=0.5, mask_patch=4, short_side=10)]
    batch = join_items(items, multiple=32)
    assert isinstance(batch.points.layout, SparseGrid) and batch.points.layout.size.tolist() == [[32, 32]] * 2
    counts = batch.points.ptr.diff().tolist()
    assert counts == [int(item.visible.sum()) for item in items] and 200 < counts[0] < 400
    cells = batch.points.layout.cell[: counts[0]]
    assert items[0].visible[cells[:, 0], cells[:, 1]].all()
    shown = EvalTransform(config(keep_ratio=(0.2, 0.9), mask="pixels")).image(sample().image)
    assert shown.visible is not None and isinstance(shown, DetectItem)
