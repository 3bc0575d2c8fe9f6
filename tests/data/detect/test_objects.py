from __future__ import annotations

import numpy as np
import pytest
import torch

from pointmix.data.detect import objects as of
from pointmix.data.detect.objects import Augmented, cut, flip, paste, trained_on
from pointmix.data.images.crops import Crop
from tests.data.detect.toy import objects_of

SIZE = (20, 30)


def augmented(boxes, size=SIZE, masks=True, **values):
    return trained_on(objects_of(boxes, size=size, **values), size, masks=masks)


def box_of(mask):
    rows, cols = mask.nonzero().T
    return [cols.min().item(), rows.min().item(), cols.max().item() + 1, rows.max().item() + 1]


def test_crowds_are_not_trained_on():
    objects = augmented([[1, 2, 5, 6], [3, 3, 9, 9], [0, 0, 2, 2]], crowd=[False, True, False])
    assert objects.boxes.tolist() == [[1, 2, 5, 6], [0, 0, 2, 2]] and objects.labels.tolist() == [0, 2]
    assert objects.masks.shape == (2, *SIZE) and objects.masks.dtype == torch.bool
    assert augmented([[1, 2, 5, 6]], masks=False).masks is None
    target = objects.target()
    assert (target.boxes.dtype, target.masks.dtype, target.labels.dtype) == (torch.float32, torch.uint8, torch.int64)


def test_resizing_moves_boxes_exactly_and_masks_with_them():
    objects = augmented([[2, 4, 10, 12], [20, 0, 30, 20]])
    for rows, cols in ((40, 60), (10, 15), (30, 30)):
        moved = cut(objects, Crop(0, 0, *SIZE, rows, cols), SIZE)
        factor = torch.tensor([cols / 30, rows / 20] * 2)
        torch.testing.assert_close(moved.boxes, objects.boxes * factor, check_dtype=False)
        for mask, box in zip(moved.masks, moved.boxes, strict=True):
            assert np.abs(np.array(box_of(mask)) - box.numpy()).max() <= 0.5
        assert moved.masks.shape == (2, rows, cols)
    shifted = cut(augmented([[3, 3, 9, 9]]), Crop(0, 0, *SIZE, 60, 90), SIZE)
    assert box_of(shifted.masks[0]) == [9, 9, 27, 27]  # centers of pixels correspond


def test_a_crop_takes_boxes_from_what_is_left_of_the_masks():
    objects = augmented([[0, 0, 10, 10], [12, 5, 14, 7], [0, 0, 3, 3]])
    assert objects.masks is not None
    objects.masks[0, 8:, :] = False  # its box is larger than the mask, as those of files may be
    objects.masks[0, :8, 9:] = False
    moved = cut(objects, Crop(4, 4, 16, 20, 16, 20), SIZE)
    assert moved.boxes.tolist() == [[0, 0, 5, 4], [8, 1, 10, 3]] and moved.labels.tolist() == [0, 1]
    assert [box_of(mask) for mask in moved.masks] == moved.boxes.tolist()
    whole = cut(objects, Crop(0, 0, *SIZE, *SIZE), SIZE)
    assert whole.boxes.tolist() == objects.boxes.tolist()  # is kept where nothing is cut
    boxes = cut(augmented([[0, 0, 10, 10], [0, 0, 3, 3]], masks=False), Crop(4, 4, 16, 20, 32, 40), SIZE)
    assert boxes.boxes.tolist() == [[0, 0, 12, 12]] and boxes.masks is None


def test_boxes_that_reach_outside_the_image_are_clipped():
    objects = augmented([[0, 0, 10, 10]], masks=False)._replace(boxes=torch.tensor([[-4.0, -5, 40, 30]]).double())
    assert cut(objects, Crop(0, 0, *SIZE, *SIZE), SIZE).boxes.tolist() == [[0, 0, 30, 20]]


def test_objects_that_become_too_small_are_left_out():
    objects = augmented([[2, 4, 4, 6], [10, 4, 26, 16]])
    moved = cut(objects, Crop(0, 0, *SIZE, 5, 8), SIZE)
    assert moved.labels.tolist() == [1] and len(moved.masks) == 1
    assert cut(augmented([[2, 4, 4, 6]], masks=False), Crop(0, 0, *SIZE, 5, 8), SIZE).boxes.shape == (0, 4)
    none = cut(augmented([]), Crop(0, 0, *SIZE, 5, 8), SIZE)
    assert none.masks.shape == (0, 5, 8) and none.boxes.shape == (0, 4)


def test_thin_and_small_objects_do_not_vanish_when_an_image_is_made_smaller():
    objects = augmented([[5, 5, 7, 7], [0, 0, 20, 20]])
    objects.masks[1] = torch.eye(20, 30, dtype=torch.bool)  # a line
    moved = cut(objects, Crop(0, 0, *SIZE, 10, 15), SIZE)  # pixels of two by two, the small one on four of them
    assert moved.labels.tolist() == [0, 1] and moved.boxes.tolist() == [[2.5, 2.5, 3.5, 3.5], [0, 0, 10, 10]]
    assert moved.masks[0].nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    thinner = cut(objects, Crop(0, 0, *SIZE, 5, 8), SIZE)
    assert thinner.labels.tolist() == [1] and thinner.masks[0].sum() >= 3
    part = cut(objects, Crop(6, 6, 14, 24, 7, 12), SIZE)  # a quarter of the small one, and of the line what is in it
    assert 0 not in part.labels.tolist()


def test_a_flip():
    objects = flip(augmented([[2, 4, 10, 12]]), SIZE)
    assert objects.boxes.tolist() == [[20, 4, 28, 12]] == [box_of(objects.masks[0])]
    twice = flip(objects, SIZE)
    assert twice.boxes.tolist() == [[2, 4, 10, 12]]
    assert flip(augmented([], masks=False), SIZE).boxes.shape == (0, 4)


@pytest.fixture
def all_are_pasted(monkeypatch):
    monkeypatch.setattr(of.torch, "rand", lambda *shape: torch.zeros(shape))


def test_pasted_objects_hide_what_is_below(all_are_pasted):
    below = augmented([[0, 0, 10, 10], [12, 2, 16, 6], [20, 10, 30, 20]], labels=[0, 1, 2])
    above = augmented([[5, 0, 17, 10], [26, 16, 30, 20]], labels=[2, 0])
    image, other = torch.full((3, *SIZE), 7, dtype=torch.uint8), torch.full((3, *SIZE), 9, dtype=torch.uint8)
    pasted, objects = paste(image, below, other, above)
    assert objects.labels.tolist() == [0, 2, 2, 0]  # the one that is hidden wholly is left out
    assert objects.boxes.tolist() == [[0, 0, 5, 10], [20, 10, 30, 20], [5, 0, 17, 10], [26, 16, 30, 20]]
    assert objects.masks.sum(0).max() == 1  # no pixel belongs to two objects
    assert objects.masks[1].sum() == 100 - 16
    cover = objects.masks[2:].any(0)
    assert (pasted == torch.where(cover, 9, 7)).all() and (image == 7).all()


@pytest.mark.parametrize("hidden, kept", [(91, False), (90, True), (0, True)])
def test_too_little_that_is_left(all_are_pasted, hidden, kept):
    below = augmented([[0, 0, 10, 10], [20, 0, 21, 2]])  # the small one is not touched
    above = augmented([[0, 0, 10, 10]])
    assert above.masks is not None
    flat = torch.zeros(100, dtype=torch.bool)
    flat[:hidden] = True
    above.masks[0, :10, :10] = flat.view(10, 10)
    image = torch.zeros((3, *SIZE), dtype=torch.uint8)
    _, objects = paste(image, below, image, above)
    assert len(objects.labels) == 1 + kept + (hidden > 0)


def test_five_hundredths_must_be_left(all_are_pasted):
    below = augmented([[0, 0, 30, 20]])  # 600 pixels
    image = torch.zeros((3, *SIZE), dtype=torch.uint8)
    for rows, kept in ((19, True), (20, False)):  # a row has 30 pixels, 5 %
        _, objects = paste(image, below, image, augmented([[0, 0, 30, rows]], labels=[1]))
        assert (0 in objects.labels.tolist()) == kept


def test_images_of_other_sizes_overlap_at_their_upper_left(all_are_pasted):
    below, above = augmented([[0, 0, 4, 4]]), augmented([[10, 10, 40, 16], [0, 30, 5, 34]], size=(40, 50))
    image, other = torch.zeros((1, *SIZE), dtype=torch.uint8), torch.ones((1, 40, 50), dtype=torch.uint8)
    pasted, objects = paste(image, below, other, above)
    assert objects.boxes.tolist() == [[0, 0, 4, 4], [10, 10, 30, 16]] and pasted.sum() == 120
    small = augmented([[1, 1, 3, 3]], size=(5, 6))
    pasted, objects = paste(image, below, torch.ones((1, 5, 6), dtype=torch.uint8), small)
    assert objects.masks.shape == (2, *SIZE) and objects.boxes.tolist()[1] == [1, 1, 3, 3] and pasted.sum() == 4


def test_each_object_is_pasted_with_probability_one_half():
    image = torch.zeros((1, *SIZE), dtype=torch.uint8)
    above = augmented([[x, 0, x + 2, 2] for x in range(0, 30, 2)])
    counts = [len(paste(image, augmented([]), image, above)[1].labels) for _ in range(40)]
    assert 5 < sum(counts) / 40 < 10 and len(set(counts)) > 3
    with pytest.raises(ValueError, match="objects without masks cannot be pasted"):
        paste(image, augmented([], masks=False), image, above)
    assert isinstance(above, Augmented)
