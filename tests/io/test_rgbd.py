"""Images with depth as clouds."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pointmix
from pointmix import PointSet
from pointmix.layouts.cloud import Cloud

K = (2.0, 4.0, 1.5, 1.0)  # of images of 3 rows and 4 columns


def frame() -> tuple[torch.Tensor, np.ndarray]:
    return torch.rand(3, 3, 4), np.arange(500, 1700, 100, dtype=np.uint16).reshape(3, 4)


def test_a_pixel_is_back_projected():
    rgb, depth = frame()
    points = PointSet.from_rgbd(rgb, depth, K)
    assert isinstance(points.layout, Cloud) and len(points.pos) == 12
    i = 2 * 4 + 3  # row 2, column 3, 1.6 m
    torch.testing.assert_close(points.pos[i], torch.tensor([(3 - 1.5) * 1.6 / 2, (2 - 1) * 1.6 / 4, 1.6]))
    assert torch.equal(points.feat[i], rgb[:, 2, 3])


def test_projecting_the_cloud_gives_the_pixels():
    rgb, depth = frame()
    x, y, z = PointSet.from_rgbd(rgb.double(), depth, K).pos.unbind(1)
    fx, fy, cx, cy = K
    row, col = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
    torch.testing.assert_close(fx * x / z + cx, col.flatten().double())
    torch.testing.assert_close(fy * y / z + cy, row.flatten().double())


def test_a_matrix_may_be_skewed():
    rgb, depth = frame()
    matrix = torch.tensor([[2.0, 0.5, 1.5], [0, 4, 1], [0, 0, 1]], dtype=torch.float64)
    points = PointSet.from_rgbd(rgb.double(), depth, matrix)
    pixel = (points.pos / points.pos[:, 2:]) @ matrix.T
    torch.testing.assert_close(pixel[5], torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64))  # row 1, column 1
    plain = PointSet.from_rgbd(rgb, depth, np.array([[2.0, 0, 1.5], [0, 4, 1], [0, 0, 1]]))
    assert torch.equal(plain.pos, PointSet.from_rgbd(rgb, depth, K).pos)


def test_without_a_camera_positions_are_of_the_image():
    rgb, depth = frame()
    points, image = PointSet.from_rgbd(rgb, depth), PointSet.from_image(rgb)
    assert torch.equal(points.pos[:, :2], image.pos) and torch.equal(points.feat, image.feat)
    torch.testing.assert_close(points.pos[:, 2], torch.arange(0.5, 1.7, 0.1))


@pytest.mark.parametrize(
    "convert",
    [
        lambda d: d.astype(">u2"),
        lambda d: d.astype(np.int32),
        lambda d: torch.from_numpy(d),
        lambda d: Image.fromarray(d),
        lambda d: torch.from_numpy(d)[None],
        lambda d: d[..., None],
        lambda d: d / 1000,
        lambda d: torch.from_numpy(d / 1000),
    ],
)
def test_integers_are_millimeters_and_floats_meters(convert):
    rgb, depth = frame()
    torch.testing.assert_close(PointSet.from_rgbd(rgb, convert(depth), K).pos, PointSet.from_rgbd(rgb, depth, K).pos)


def test_depth_scale_is_of_integers():
    rgb, depth = frame()
    assert torch.equal(
        PointSet.from_rgbd(rgb, depth * 5, K, depth_scale=5000).pos, PointSet.from_rgbd(rgb, depth, K).pos
    )
    assert PointSet.from_rgbd(rgb, depth / 1000, K, depth_scale=5000).pos[0, 2] == 0.5


@pytest.mark.parametrize("intrinsics", [None, K])
def test_pixels_without_depth_or_hidden_are_absent(intrinsics):
    rgb, depth = frame()
    depth = depth / 1000
    depth[0] = [0, np.nan, np.inf, -1]
    mask = np.ones((3, 4))
    mask[2, 1] = 0
    rgb[:, 0] = rgb[:, 2, 1] = torch.nan  # not looked at
    seen = np.array([False] * 4 + [True] * 5 + [False] + [True] * 2)
    points = PointSet.from_rgbd(rgb, depth, intrinsics, mask)
    whole = PointSet.from_rgbd(rgb.nan_to_num(), frame()[1], intrinsics)
    torch.testing.assert_close(points.pos, whole.pos[seen])
    assert torch.equal(points.feat, whole.feat[seen])


def test_colors_are_those_of_from_image():
    rgb = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    norm = dict(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    for image in (rgb, Image.fromarray(rgb)):
        assert torch.equal(PointSet.from_rgbd(image, frame()[1], K, **norm).feat, PointSet.from_image(rgb, **norm).feat)


def test_half_precision_keeps_exact_positions():
    rgb, depth = frame()
    points = PointSet.from_rgbd(rgb.half(), depth, K)
    assert points.feat.dtype == torch.float16
    assert torch.equal(points.pos, PointSet.from_rgbd(rgb, depth, K).pos)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"depth": np.ones((4, 3))}, r"depth is 4x3, the image is 3x4 \(rows x columns\)"),
        ({"depth": np.zeros((3, 4), np.uint16)}, "no pixel has a valid depth, expected"),
        ({"depth": np.full((3, 4), np.nan)}, "no pixel has a valid depth"),
        ({"depth": np.eye(3, 4), "mask": 1 - np.eye(3, 4)}, "no pixel has a valid depth where the mask shows it"),
        ({"depth": np.ones((3, 4, 3))}, r"depth must be \(H, W\), got \(3, 4, 3\)"),
        ({"depth": np.ones((3, 4), bool)}, "depth must be integers or floats, got bool"),
        ({"depth": torch.ones(3, 4, dtype=torch.bool)}, "depth must be integers or floats, got torch.bool"),
        ({"depth_scale": 0}, "depth_scale must be above 0"),
        ({"mask": np.ones((2, 2))}, "mask is 2x2, the image is 3x4"),
        ({"rgb": torch.full((3, 3, 4), torch.nan)}, "NaN or infinite values at 12 of 12 pixels"),
        ({"intrinsics": (525, 525)}, r"\(fx, fy, cx, cy\) or 3x3, got shape \(2,\)"),
        ({"intrinsics": (0, 1, 0, 0)}, "positive focal lengths"),
        ({"intrinsics": (1, 1, 0, np.inf)}, "must be finite"),
        ({"intrinsics": torch.ones(3, 3)}, r"as a matrix, \[\[fx, s, cx\]"),
        ({"intrinsics": (2, 4, 4, 1)}, "at column 4, row 1, outside the image of 4 columns and 3 rows; are they of"),
        ({"intrinsics": (2, 4, 1, -9)}, "at column 1, row -9, outside the image"),
        ({"intrinsics": "camera"}, "intrinsics must be numbers"),
    ],
)
def test_bad_input_is_named(change, message):
    rgb, depth = frame()
    with pytest.raises(ValueError, match=message):
        PointSet.from_rgbd(**({"rgb": rgb, "depth": depth, "intrinsics": K} | change))


def test_frames_of_any_sizes_make_a_batch():
    frames = [
        PointSet.from_rgbd(torch.rand(3, h, 9), torch.rand(h, 9) + 0.5, (2.0, 4.0, 1.5, h / 2 - 0.5))
        for h in (20, 7, 1)
    ]
    model = pointmix.create_model(
        "coc_tiny", dims=(8, 8, 8, 8), depths=(1, 1, 1, 1), heads=1, head_dim=4, num_classes=2, coord_dims=3
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(PointSet.cat(frames)), torch.cat([model(f) for f in frames]))


def test_real_frames():
    data = os.environ.get("POINTMIX_DATA", "")
    if not data:
        pytest.skip("POINTMIX_DATA does not name the folder of real data")
    frames, stride = [], 8
    for i in (0, 1):
        stem = Path(data, "mosd_rgbd/learn")
        rgb, depth = (np.array(Image.open(stem / f"{i:02}_{kind}.png")) for kind in ("rgb", "depth"))
        k = np.array([525, 525, 319.5, 239.5]) / stride
        frames.append(PointSet.from_rgbd(rgb[::stride, ::stride], depth[::stride, ::stride], k))
        whole = PointSet.from_rgbd(rgb, depth, (525, 525, 319.5, 239.5))
        kept = torch.zeros(480, 640, dtype=torch.bool)
        kept[::stride, ::stride] = True
        torch.testing.assert_close(frames[-1].pos, whole.pos[kept[torch.from_numpy(depth > 0)]])
        assert 0.4 < len(whole.pos) / depth.size < 0.8 and 0.3 < whole.pos[:, 2].min() < whole.pos[:, 2].max() < 3
    model = pointmix.create_model("coc_tiny", coord_dims=3, num_classes=4).eval()
    with torch.no_grad():
        assert torch.isfinite(model(PointSet.cat(frames))).all()


def test_depth_in_floats_that_is_more_likely_in_millimeters_is_noticed():
    rgb, depth = frame()
    with pytest.warns(UserWarning, match="the median depth is above 100 m; .* depth_scale is for integers; divide mil"):
        PointSet.from_rgbd(rgb, depth.astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PointSet.from_rgbd(rgb, depth)
        few = depth / 1000.0
        few[0, 0] = 900  # the sky
        PointSet.from_rgbd(rgb, few)
