"""Pictures of the clusters of RGB-D frames."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import pointmix
from pointmix.data.transforms import unit_sphere
from pointmix.explain import draw_frames, frames
from pointmix.explain.images import label_maps

K = (40.0, 40.0, 19.5, 11.5)


def frame(height: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A wall, and a box that stands before its left half; the upper rows have no depth."""
    rng = np.random.default_rng(seed)
    depth = np.full((height, 40), 1500, np.uint16)
    depth[:, :15] = 800
    depth[:4] = 0
    return rng.integers(0, 256, (height, 40, 3), dtype=np.uint8), depth


def tiny(**kwargs) -> torch.nn.Module:
    torch.manual_seed(0)
    settings = dict(dims=(8, 8), depths=(1, 1), mlp_ratios=(2, 2), folds=(2, 1), centers=(2, 2), heads=1, head_dim=4)
    return pointmix.create_model("coc_tiny", **(settings | dict(coord_dims=3, num_classes=3) | kwargs))


@pytest.fixture
def drawn(monkeypatch):
    """What would have been drawn: (photo, cloud on its pixels, assignment, row) of each panel."""
    panels = []
    monkeypatch.setattr(frames, "draw_panel", lambda ax, *args, inclusive: panels.append(args))
    return panels


@pytest.mark.parametrize("intrinsics", [None, K])
def test_every_pixel_with_a_depth_shows_its_cluster(drawn, tmp_path, intrinsics):
    rgb, depth = frame()
    draw_frames(tiny(), [rgb, rgb[:20]], [depth, depth[:20]], tmp_path / "x.png", intrinsics)
    assert len(drawn) == 4
    for photo, cloud, assignment, row in drawn:
        assert photo.shape == ((24, 20)[row], 40, 3)
        np.testing.assert_allclose(photo, rgb[: len(photo)] / 255, atol=1e-6)
        center, window = label_maps(cloud, assignment, row)
        assert ((center >= 0) == (depth[: len(photo)] > 0)).all() and ((window >= 0) == (center >= 0)).all()
        used = np.unique(center[center >= 0])
        at = (assignment.center_pos[used] + 0.5) * (torch.tensor(photo.shape[:2]) - 1)
        assert (at[:, 0] > 3.9).all() and (at <= torch.tensor([23.0, 39.0])).all()  # where a pixel has a depth


def test_windows_are_of_space(drawn, tmp_path):
    """The box and the wall behind lie in different windows, which their places in the image alone would not say."""
    rgb, depth = frame()
    draw_frames(tiny(folds=(2, 2)), [rgb], [depth], tmp_path / "x.png", K)
    _, cloud, assignment, row = drawn[0]
    _, window = label_maps(cloud, assignment, row)
    assert not set(np.unique(window[4:, :15])) & set(np.unique(window[4:, 15:]))


def test_masks_and_transforms(drawn, tmp_path):
    rgb, depth = frame()
    mask = np.zeros((24, 40))
    mask[:, 5:30] = 1
    seen = []

    def noted(points):
        seen.append(points)
        return unit_sphere(points)

    draw_frames(tiny(), [rgb], [depth / 1000], tmp_path / "x.png", K, [mask], transform=noted)
    assert len(seen[0].pos) == 20 * 25 and seen[0].pos[:, 2].max() == 1.5
    _, cloud, assignment, row = drawn[0]
    assert cloud.pos.norm(dim=1).max() < 1.001
    assert ((label_maps(cloud, assignment, row)[0] >= 0) == (mask * depth > 0)).all()


def test_frames_make_a_picture(tmp_path):
    model = tiny().train()
    pairs = [frame(seed=i) for i in range(3)]
    draw = partial(draw_frames, model, *zip(*pairs, strict=True), intrinsics=K)
    draw(path=tmp_path / "a.png", titles=["a$b", "_", "c"], max_frames=2)
    assert model.training
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert image.format == "PNG" and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200
    with pytest.raises(ValueError, match="no frame to draw"):
        draw(path=tmp_path / "b.png", max_frames=0)
    with pytest.raises(ValueError, match="depth is 24x40, the image is 9x40"):
        draw_frames(model, [pairs[0][0][:9]], [pairs[0][1]], tmp_path / "b.png", K)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
