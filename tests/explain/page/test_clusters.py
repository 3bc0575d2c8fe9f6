"""The clusters of each block, as a page gets them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pointmix
from pointmix import PointSet
from pointmix.explain.blocks import center_and_window
from pointmix.explain.page.clusters import assignments_of, block_views
from pointmix.explain.page.groups import group_assignments
from pointmix.explain.page.scene import cloud_scene, image_scene

SMALL = dict(
    dims=(8, 8), depths=(1, 2), mlp_ratios=(2, 2), windows_per_side=(2, 1), centers_per_side=(2, 2), heads=2, head_dim=4
)


def tiny(name="coc_tiny", **kwargs):
    torch.manual_seed(0)
    return pointmix.create_model(name, **(SMALL | dict(num_classes=3) | kwargs)).eval()


@pytest.mark.parametrize("partial", [False, True])
def test_blocks_of_an_image(partial):
    model, image = tiny(), torch.rand(3, 32, 24)
    x = PointSet.from_image(image, torch.rand(32, 24) > 0.4) if partial else image[None]
    scene = image_scene(x)
    with torch.no_grad():
        assignments = assignments_of(model, scene.x)
        views = block_views(scene, model, assignments)
    assert [view.name for view in views] == ["stage 1, block 1", "stage 2, block 1", "stage 2, block 2"]
    assert [(v.stage, v.block, v.windows, v.centers) for v in views] == [(0, 0, 4, 4), (1, 0, 1, 4), (1, 1, 1, 4)]
    for view, assignment in zip(views, assignments, strict=True):
        assert view.kind == "hard" and not view.trivial and view.points == len(assignment.points.pos)
        center, window = center_and_window(assignment, 0, scene.pos)
        assert (view.center[view.nearest, 0] == center.numpy()).all()
        assert (view.window[view.nearest] == window.numpy()).all()
        np.testing.assert_allclose(view.weight / 255, assignment.weight.numpy(), atol=0.003)
        assert view.color.shape == (2, 4 * view.windows, 3) and view.center_position.shape == (4 * view.windows, 2)
        for head in range(2):  # clusters that touch differ in color
            image = np.full((32, 24, 3), -1)
            image.reshape(-1, 3)[scene.points.pixel] = view.color[head][view.center[view.nearest, head]]
            label = np.full((32, 24), -1)
            label.flat[scene.points.pixel] = view.center[view.nearest, head]
            edge = (label[1:] != label[:-1]) & (label[1:] >= 0) & (label[:-1] >= 0)
            assert edge.any() and (image[1:] != image[:-1]).any(2)[edge].all()


def test_as_many_centers_as_points_are_trivial():
    model = tiny(windows_per_side=(4, 1))
    scene = image_scene(torch.rand(1, 3, 32, 32))
    with torch.no_grad():
        views = block_views(scene, model, assignments_of(model, scene.x))
    assert [(view.points, view.trivial) for view in views] == [(64, True), (16, False), (16, False)]


def test_soft_mixers_say_so():
    model = pointmix.create_model("hcformer_nano", num_classes=2).eval()
    scene = image_scene(torch.rand(1, 3, 224, 224))
    with torch.no_grad():
        views = block_views(scene, model, assignments_of(model, scene.x)[:2])
    assert [view.kind for view in views] == ["soft"] * 2 and 0 < views[0].weight.max() <= 255


def test_a_cloud_of_more_points_than_are_shown(monkeypatch):
    from pointmix.explain.page import scene as scenes

    monkeypatch.setattr(scenes, "MAX_POINTS", 20)
    model = tiny(coord_dims=3, in_chans=0, stem=(3, 1, 1))
    scene = cloud_scene(PointSet.from_points(torch.rand(200, 3)))
    with torch.no_grad():
        assignments = assignments_of(model, scene.x)
        view = block_views(scene, model, assignments)[0]
    assert view.points == 200 and len(view.center) <= 20 == len(view.nearest)
    center, _ = center_and_window(assignments[0], 0, scene.pos)
    assert (view.center[view.nearest, 0] == center.numpy()).all()
    assert view.center_position.dtype == np.uint16 and view.color.shape == (2, len(view.center_position), 3)


def test_groups_of_pointmlp_coc():
    torch.manual_seed(0)
    model = pointmix.create_model("pointmlp_coc", num_classes=3, neighbors=6).eval()
    points = PointSet.from_points(torch.rand(64, 3))
    with torch.no_grad():
        found = group_assignments(model, points)
        scene = cloud_scene(points)
        views = block_views(scene, model, assignments_of(model, scene.x))
    first = found[0]
    assert [len(a.points.pos) for a in found[::2]] == [64, 32, 16, 8] and first.center_pos.shape == (32, 3)
    stage, layer = model.stages[0], model.stages[0].pre[0]
    with torch.no_grad():  # the weights of the layer as its equation has them, one by one
        from pointmix.nn.grouper import Groups

        start = model.as_points(points)
        feat = start.with_feat(torch.relu(model.stem(start.feat)))
        groups = Groups.of(feat, 6)
        q = layer.query(stage.group_features(feat.feat, groups)).view(32, 6, -1)
        cos = torch.cosine_similarity(q, q.mean(1, keepdim=True), dim=-1)
        s = torch.sigmoid(layer.alpha * cos + layer.beta)
    for point in range(64):
        group, place = (groups.neighbors == point).nonzero(as_tuple=True)
        if len(group) == 0:
            assert first.weight[point, 0] == 0
            continue
        assert first.weight[point, 0] == pytest.approx(s[group, place].max().item(), rel=1e-5)
        chosen = group == first.center[point, 0]
        assert chosen.any() and s[group, place][chosen].max() == pytest.approx(s[group, place].max().item(), rel=1e-5)
    assert (views[0].windows, views[0].centers, views[0].kind) == (32, 1, "soft") and len(views) == 8
    assert assignments_of(pointmix.create_model("pointmlp_elite").eval(), points) == []
