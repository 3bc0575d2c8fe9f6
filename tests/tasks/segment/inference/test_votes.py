"""Views of clouds: turned and scaled as in training."""

from __future__ import annotations

import pytest
import torch

from pointmix import PointSet
from pointmix.data.segment.clouds.config import CloudSettings
from pointmix.tasks.segment.inference.votes import normal_channels, turned, vote_views


def test_votes_turn_and_scale_positions_and_normals_about_the_up_axis():
    feat = torch.randn(8, 7)
    points = PointSet.from_points(torch.randn(8, 3), feat)
    features = ("intensity", "normal", "rgb")
    moved = turned(points, features=features, up="z", degrees=90.0, factor=2.0)
    x, y, z = points.pos.T
    torch.testing.assert_close(moved.pos, 2 * torch.stack([-y, x, z], 1))
    a, b, c = feat[:, 1:4].T
    torch.testing.assert_close(moved.feat, torch.cat([feat[:, :1], torch.stack([-b, a, c], 1), feat[:, 4:]], 1))


def test_views_are_in_the_ranges_of_training_and_always_the_same():
    cfg, points = CloudSettings(rotate=30.0, scale=(0.5, 0.6), up="y"), PointSet.from_points(torch.randn(8, 3))
    first, *others = vote_views(cfg, 5)
    assert first(points) is points and len(others) == 4
    for view, again in zip(others, vote_views(cfg, 5)[1:], strict=True):
        pos = view(points).pos
        assert torch.equal(pos, again(points).pos)
        factor = (pos[:, 1] / points.pos[:, 1])[0]
        assert 0.5 <= factor <= 0.6
        flat, turn = points.pos[0, ::2], pos[0, ::2] / factor
        assert torch.dot(flat, turn) / flat.norm() ** 2 >= 0.5 * 3**0.5 - 1e-6  # the cosine of 30 degrees
    assert not torch.allclose(others[0](points).pos, others[1](points).pos)
    with pytest.raises(ValueError, match="3 votes would be the same: data.rotate is 0 and data.scale 1, 1"):
        vote_views(CloudSettings(rotate=0.0, scale=(1.0, 1.0)), 3)


def test_channels_of_normals():
    assert normal_channels(("rgb", "intensity"), 9) is None
    assert normal_channels(("rgb", "normal"), 6) == (3, 6)
    with pytest.raises(ValueError, match="cannot tell which of 8 channels of normal, other are normals, for votes"):
        normal_channels(("normal", "other"), 8)
