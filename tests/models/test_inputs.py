"""What networks are given by mistake is named, with what was expected."""

from __future__ import annotations

import pytest
import torch

import pointmix
from pointmix import PointSet

SMALL = dict(
    depths=(1, 1), dims=(8, 8), mlp_ratios=(2, 2), windows_per_side=(2, 1), centers_per_side=(2, 2), heads=1, head_dim=4
)


@pytest.mark.parametrize("layout", ["given", "cloud"])
@pytest.mark.parametrize(
    "x, message",
    [
        (torch.rand(3, 32, 32), r"0 channels, .*: a tensor \(3, 32, 32\) .* One image becomes a batch with x\[None\]"),
        (torch.rand(2, 32, 40, 3), "32 channels, .* 3; 32x40x3 looks like H x W x C, expected C x H x W"),
        (PointSet.from_image(torch.rand(30, 40, 3)), "30 channels, .* 3; 30x40x3 looks like H x W x C"),
        (torch.rand(2, 4, 32, 32), "the input has 4 channels, the model takes 3$"),
        (torch.ones(2, 3, 32, 32).byte(), "the input is torch.uint8, expected floats; PointSet.from_images"),
        (torch.rand(32, 32), r"expected images \(B, C, H, W\) or clouds \(B, N, D\), got \(32, 32\)"),
    ],
)
def test_images(x, message, layout):
    model = pointmix.create_model("coc_tiny", layout=layout, **SMALL)
    with pytest.raises(ValueError, match=message):
        model(x)


def test_batches_with_colors_last_are_refused_before_a_model_sees_them():
    for images in (torch.rand(2, 32, 40, 3), torch.rand(2, 32, 40, 4).byte()):
        with pytest.raises(ValueError, match="looks like H x W x C, expected C x H x W"):
            PointSet.from_images(images)


@pytest.mark.parametrize("name, more", [("coc_tiny", SMALL | dict(coord_dims=3)), ("pointmlp_elite", dict(dim=8))])
@pytest.mark.parametrize(
    "x, message",
    [
        (torch.rand(2, 9, 3), r"0 channels, .* 2: .*; clouds with features are point sets, see PointSet.from_points"),
        (PointSet.from_points(torch.rand(9, 3)), "the input has 0 channels, the model takes 2$"),
        (PointSet.from_points(torch.rand(9, 2), torch.rand(9, 2)), "positions have 2 dimensions, the model takes 3"),
        (torch.ones(2, 9, 3).int(), "the input is torch.int32, expected floats"),
    ],
)
def test_clouds(name, more, x, message):
    with pytest.raises(ValueError, match=message):
        pointmix.create_model(name, in_chans=2, **more)(x)
