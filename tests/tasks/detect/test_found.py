from __future__ import annotations

import numpy as np
import pytest
import torch

from pointmix.data.detect import masks as rle
from pointmix.models.detector import Detections
from pointmix.tasks.detect.found import in_pixels, paste_mask


def expected_pixels(mask, box, size, threshold=0.5):
    """Pixel by pixel in float64: bilinear between the centers of the cells of the mask, zeros beyond."""
    m, (x1, y1, x2, y2) = len(mask), box
    padded = np.zeros((m + 2, m + 2))
    padded[1:-1, 1:-1] = mask

    def weights(center, low, high):
        at = (center - low) / (high - low) * m - 0.5  # in cells, 0 at the center of the first one
        below = int(np.floor(at))
        return below, at - below

    pixels = np.zeros(size, np.uint8)
    for row in range(size[0]):
        for column in range(size[1]):
            (i, u), (j, v) = weights(row + 0.5, y1, y2), weights(column + 0.5, x1, x2)
            if not (-1 <= i < m and -1 <= j < m):
                continue
            four = padded[i + 1 : i + 3, j + 1 : j + 3]
            pixels[row, column] = np.array([1 - u, u]) @ four @ np.array([1 - v, v]) >= threshold
    return pixels


@pytest.mark.parametrize(
    "box",
    [[3.2, 4.1, 17.9, 12.3], [0, 0, 20, 15], [5, 5, 5.7, 5.8], [19.5, 14.2, 20, 15], [-4, -3, 30, 20], [7, 3, 7.1, 12]],
)
@pytest.mark.parametrize("m", [28, 5])
def test_masks_are_sampled_at_the_centers_of_pixels(box, m):
    mask = torch.rand(m, m, generator=torch.Generator().manual_seed(m))
    found = paste_mask(mask, box, (15, 20))
    expected = expected_pixels(mask.double().numpy(), box, (15, 20))
    assert found.shape == (15, 20) and (found == expected).all()
    if box == [0, 0, 20, 15]:
        assert 60 < found.sum() < 240


def test_a_full_mask_covers_its_box():
    found = paste_mask(torch.ones(28, 28), [2, 3, 9, 11], (15, 20))
    expected = np.zeros((15, 20))
    expected[3:11, 2:9] = 1
    assert (found == expected).all()
    for empty in ([5, 5, 5, 9], [5, 9, 8, 9], [-5, -5, -2, -1], [30, 2, 33, 4]):
        assert not paste_mask(torch.ones(28, 28), empty, (15, 20)).any()


def test_boxes_and_masks_are_those_of_the_image_as_read():
    boxes = torch.tensor([[0.0, 0, 30, 20], [10, 5, 20, 10]])
    found = in_pixels(
        Detections(boxes, torch.tensor([1, 0]), torch.tensor([0.5, 0.25]), torch.ones(2, 28, 28)),
        lattice=(20, 30), size=(80, 60), name="a.png",
    )  # fmt: skip
    assert found.boxes.tolist() == [[0, 0, 60, 80], [20, 20, 40, 40]]
    assert found.labels.tolist() == [1, 0] and found.scores.tolist() == [0.5, 0.25]
    # at its corners the sampled probability is 0.75 * 0.75 at most, below the threshold near them
    assert rle.area(found.masks).tolist() == [60 * 80 - 4, 20 * 20] and found.masks[1]["size"] == [80, 60]
    assert rle.boxes(found.masks)[1].tolist() == [20, 20, 40, 40]


def test_no_detection_and_no_masks():
    none = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0, 28, 28))
    found = in_pixels(none, lattice=(4, 4), size=(8, 8), name="a")
    assert found.masks == () and found.boxes.shape == (0, 4)
    assert in_pixels(none._replace(masks=None), lattice=(4, 4), size=(8, 8), name="a").masks is None


@pytest.mark.parametrize("where", ["boxes", "scores"])
def test_detections_that_are_not_finite_are_refused(where):
    fine = Detections(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), torch.zeros(1), None)
    bad = fine._replace(**{where: getattr(fine, where).fill_(float("nan"))})
    with pytest.raises(ValueError, match="the detections in a.png are not finite"):
        in_pixels(bad, lattice=(4, 4), size=(8, 8), name="a.png")
