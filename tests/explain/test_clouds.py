"""Pictures of clusters on clouds, of made-up assignments and of real models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pointmix
from pointmix import PointSet
from pointmix.explain import clouds, draw_clouds
from pointmix.explain.blocks import center_and_window
from pointmix.explain.clouds import UP, region_colors, upright
from pointmix.explain.scatter import Panel
from pointmix.nn.stage import Assignment


class Fixed(nn.Module):
    """Answers with what it is given."""

    def __init__(self, made: Assignment):
        super().__init__()
        self.made, self.weight = made, nn.Parameter(torch.zeros(1))

    def explain(self, x):
        return [self.made]


def halves() -> tuple[PointSet, Assignment]:
    """Two sets in a cube each; in the first x < 0 is cluster 0 and x > 0 cluster 1, in the second all is cluster 2."""
    torch.manual_seed(0)
    sets = [PointSet.from_points(torch.rand(n, 3) - 0.5, torch.rand(n, 3)) for n in (200, 70)]
    points = PointSet.cat(sets)
    center = torch.cat([(sets[0].pos[:, :1] > 0).long(), torch.full((70, 1), 2)])
    window = torch.cat([torch.zeros(200), torch.ones(70)]).long()
    center_pos = torch.tensor([[-0.25, 0, 0], [0.25, 0, 0], [0, 0, 0]])
    return points, Assignment("stages.0.blocks.0", center, torch.ones(270, 1), window, center_pos, points)


def tiny(**kwargs) -> nn.Module:
    torch.manual_seed(0)
    settings = dict(
        dims=(8, 8),
        depths=(1, 1),
        mlp_ratios=(2, 2),
        windows_per_side=(2, 1),
        centers_per_side=(2, 2),
        heads=1,
        head_dim=4,
    )
    return pointmix.create_model("coc_tiny", **(settings | dict(coord_dims=3, num_classes=3) | kwargs))


@pytest.fixture
def panels(monkeypatch):
    """The rows of panels that would have been written."""
    rows: list[list[Panel]] = []
    monkeypatch.setattr(clouds, "write_png", lambda path, found, titles: rows.extend(found))
    return rows


def test_a_point_has_the_color_of_its_cluster(panels):
    points, made = halves()
    draw_clouds(Fixed(made), points, "x.png", up="z")
    assert [[p.title.partition("\n")[0] for p in row] for row in panels] == [["input", "stage 1, block 1"]] * 2
    for row, cloud in zip(panels, points.unbind(), strict=True):
        panel = row[1]
        assert len(panel.pos) == len(cloud.pos) and "1 window" in panel.note
        hue = panel.color / panel.color.max(1, keepdims=True)  # light makes it darker, not another one
        marks = panel.mark_color / panel.mark_color.max(1, keepdims=True)
        for i in range(len(panel.pos)):
            nearest = np.abs(panel.marks[:, 0] - panel.pos[i, 0]).argmin()
            np.testing.assert_allclose(hue[i], marks[nearest])
    assert [len(row[1].marks) for row in panels] == [2, 1]
    assert not np.allclose(panels[0][1].mark_color[0], panels[0][1].mark_color[1])


def test_a_point_takes_the_cluster_of_the_nearest_point_of_the_stage():
    points, made = halves()
    coarse = PointSet.cat([PointSet.from_points(torch.eye(3) * 9), PointSet.from_points(torch.tensor([[-1.0, 0, 0]]))])
    center, window = torch.tensor([[3], [1], [4], [7]]), torch.tensor([0, 0, 1, 2])
    made = replace(made, points=coarse, center=center, weight=torch.ones(4, 1), window=window)
    first, second = points.unbind()[0], PointSet.from_points(torch.zeros(2, 3), torch.zeros(2, 3))
    center, window = center_and_window(made, 0, first.pos)
    largest = first.pos.argmax(1).numpy()
    assert center.tolist() == np.array([3, 1, 4])[largest].tolist()
    assert window.tolist() == np.array([0, 0, 1])[largest].tolist()
    assert center_and_window(made, 1, second.pos)[0].tolist() == [7, 7]


def test_clusters_that_touch_or_share_a_window_differ():
    x = np.arange(60)
    center, window = x // 2, x // 20
    near = np.clip(x[:, None] + np.array([0, -1, 1]), 0, 59)
    colors = region_colors(center, window, near)
    assert sorted(colors) == list(range(30))
    for a in range(30):
        for b in range(a):
            if a - b == 1 or a // 10 == b // 10:
                assert not np.allclose(colors[a], colors[b])


def test_frames_areupright_and_right_handed():
    for up in UP:
        axes = upright(np.eye(3), up)  # where x, y and z point
        assert np.linalg.det(axes) == pytest.approx(1)
        sign = -1 if up[0] == "-" else 1
        assert (axes["xyz".index(up[-1])] == [0, 0, sign]).all()


def test_own_colors_are_shown_and_normalization_undone(panels):
    points, made = halves()
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    normed = points.with_feat((points.feat - torch.tensor(mean)) / torch.tensor(std))
    draw_clouds(Fixed(made), points, "x.png")
    draw_clouds(Fixed(made), normed, "x.png", mean=mean, std=std)
    draw_clouds(Fixed(made), normed, "x.png")
    plain, undone, height = panels[0][0].color, panels[2][0].color, panels[4][0].color
    np.testing.assert_allclose(plain, undone, atol=1e-6)
    assert not np.allclose(plain, height, atol=0.1)


def test_large_clouds_are_thinned_out(panels, monkeypatch):
    monkeypatch.setattr(clouds, "MAX_POINTS", 50)
    points, made = halves()
    draw_clouds(Fixed(made), points, "x.png")
    assert [len(row[1].pos) for row in panels] == [50, 50] and panels[0][0].note == "200 points"


def test_a_model_without_clusters_shows_its_anchors(panels):
    model = pointmix.create_model("pointmlp_elite", num_classes=3).train()
    points = PointSet.cat([PointSet.from_points(torch.rand(n, 3)) for n in (64, 20)])
    draw_clouds(model, points, "x.png")
    assert model.training
    assert [[len(p.marks) for p in row] for row in panels] == [[0, 32, 16, 8, 4], [0, 10, 5, 2, 1]]
    for row, cloud in zip(panels, points.unbind(), strict=True):
        places = {tuple(p) for p in upright(cloud.pos.double().numpy(), "y")}
        assert all(tuple(mark) in places for panel in row for mark in panel.marks)


def test_a_real_model_makes_a_picture(tmp_path):
    model = tiny(in_chans=0).train()
    points = PointSet.cat([PointSet.from_points(torch.randn(n, 3)) for n in (100, 1, 30)])
    draw_clouds(model, points, tmp_path / "a.png", titles=["b$x", "_", "c"], max_sets=2)
    assert model.training
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert image.format == "PNG" and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_the_picture_follows_the_clusters(tmp_path):
    points, made = halves()
    files = [tmp_path / name for name in ("a.png", "b.png", "again.png")]
    draw_clouds(Fixed(made), points, files[0])
    draw_clouds(Fixed(made), points, files[2])
    made.center[:100] = 0
    draw_clouds(Fixed(made), points, files[1])
    assert files[0].read_bytes() == files[2].read_bytes() != files[1].read_bytes()


@pytest.mark.parametrize(
    "dims, kwargs, message",
    [
        (2, {}, "expected points in 3 dimensions"),
        (3, {"max_sets": 0}, "at least one set to draw"),
        (3, {"up": "north"}, "up must be one of x, -x, y, -y, z, -z, got 'north'"),
        (3, {"titles": ["one"]}, "2 sets but 1 titles"),
    ],
)
def test_bad_input_is_named(tmp_path, dims, kwargs, message):
    points = PointSet.from_batch(torch.rand(2, 9, dims))
    with pytest.raises(ValueError, match=message):
        draw_clouds(tiny(in_chans=0, coord_dims=dims), points, tmp_path / "x.png", **kwargs)


@pytest.mark.parametrize("model", [tiny(in_chans=0, cluster=False), nn.Linear(3, 3)])
def test_a_model_that_does_not_cluster(tmp_path, monkeypatch, model):
    drawn = []
    monkeypatch.setattr(clouds, "write_png", lambda path, rows, titles: drawn.extend(rows))
    draw_clouds(model, PointSet.from_batch(torch.rand(1, 20, 3)), tmp_path / "x.png")
    assert [panel.note for panel in drawn[0]] == ["20 points, no block clusters"]
