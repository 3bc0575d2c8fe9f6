"""Inference on clouds: every original point gets the sum of its votes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from pointmix import PointSet
from pointmix.tasks.segment.inference import clouds as module
from pointmix.tasks.segment.inference.clouds import CloudInfer, OnePerCell, nearest_cover
from pointmix.tasks.segment.inference.votes import same
from tests.tasks.segment.standin import StandIn


def a_cloud(number=60):
    return PointSet.from_points(torch.rand(number, 3, dtype=torch.float64) * 10, torch.randn(number, 3).double())


def float32(points):
    return points.in_type(torch.float32)


def centered(points):
    return float32(replace(points, pos=points.pos - (points.pos.amax(0) + points.pos.amin(0)) / 2))


def halves(points, overlap=1.0):
    """Two crops along x that overlap."""
    x = points.pos[:, 0]
    return [(x < 5 + overlap).nonzero()[:, 0], (x >= 5 - overlap).nonzero()[:, 0]]


def every_third(points):
    return [torch.arange(start, len(points.pos), 3) for start in range(min(3, len(points.pos)))]


@pytest.mark.parametrize("part", [7, 1 << 17])
def test_an_object_is_taken_whole(monkeypatch, part):
    monkeypatch.setattr(module, "PART", part)
    points, model = a_cloud(), StandIn(dims=3, context=1.0, place=1.0)
    scores = CloudInfer(centered)(model, points)
    assert scores.shape == (60, 4) and scores.dtype == torch.float32
    torch.testing.assert_close(scores, model(centered(points)).softmax(1))
    label, confidence = CloudInfer(centered).labels(model, points)
    assert (label == scores.argmax(1)).all() and (confidence == scores.amax(1)).all()


def test_votes_of_overlapping_crops_are_added_up():
    points, model = a_cloud(), StandIn(dims=3, context=1.0, place=1.0)
    scores = CloudInfer(centered, cover=halves)(model, points)
    total = torch.zeros(60, 4)
    for index in halves(points):
        crop = PointSet.from_points(points.pos[index], points.feat[index])
        total[index] += model(centered(crop)).softmax(1)
    assert (total.sum(1) > 1.5).any()  # some points are in both
    torch.testing.assert_close(scores, total / total.sum(1, keepdim=True))


def test_every_point_of_every_fragment_is_labeled():
    points, model = a_cloud(), StandIn(dims=3, context=1.0)
    scores = CloudInfer(float32, cover=halves, fragments=every_third)(model, points)
    assert len(model.calls) == 1 and model.calls[0].num_sets == 6
    expected = torch.zeros(60, 4)
    for fragment in every_third(points):
        for crop in halves(PointSet.from_points(points.pos[fragment])):
            index = fragment[crop]
            piece = PointSet.from_points(points.pos[index], points.feat[index])
            expected[index] += model(float32(piece)).softmax(1)
    torch.testing.assert_close(scores, expected / expected.sum(1, keepdim=True))


def test_batches_are_bounded_and_do_not_change_the_scores():
    points, model = a_cloud(), StandIn(dims=3, context=1.0, rows=11)
    infer = CloudInfer(float32, fragments=every_third)
    together = infer(model, points)
    assert len(model.calls) == 1
    few = replace(infer, batch_points=45)(model, points)
    assert [call.num_sets for call in model.calls[1:]] == [2, 1]
    one = replace(infer, batch_points=1)(model, points)
    assert len(model.calls) == 6
    torch.testing.assert_close(few, together)
    torch.testing.assert_close(one, together)


def test_large_clouds_are_divided_into_random_parts():
    points, infer = a_cloud(), CloudInfer(float32, max_points=25)
    pieces = list(infer.pieces(points))
    assert [len(piece) for piece in pieces] == [20, 20, 20]
    assert torch.cat(pieces).sort().values.tolist() == list(range(60))
    assert all(piece.diff().min() < 0 for piece in pieces)  # in random order
    assert torch.isfinite(infer(StandIn(dims=3), points)).all()


def test_large_crops_are_divided_into_neighborhoods():
    points = a_cloud()
    pieces = list(CloudInfer(float32, cover=halves, max_points=12).pieces(points))
    assert max(map(len, pieces)) == 12 and torch.cat(pieces).unique().numel() == 60
    for piece in pieces:
        crop = next(crop for crop in halves(points) if torch.isin(piece, crop).all())
        away = torch.linalg.vector_norm(points.pos[crop] - points.pos[piece[0]], dim=1)
        assert torch.linalg.vector_norm(points.pos[piece] - points.pos[piece[0]], dim=1).max() == away.sort()[0][11]


def test_neighborhoods_among_coinciding_points():
    pieces = nearest_cover(torch.zeros(10, 3), 4)
    assert torch.cat(pieces).unique().numel() == 10 and len(pieces) <= 10


def test_views_vote():
    def turned(points):
        return replace(points, pos=-points.pos)

    points, model = a_cloud(), StandIn(dims=3, place=1.0)
    scores = CloudInfer(float32, views=(same, turned))(model, points)
    both = [CloudInfer(float32, views=(view,))(model, points) for view in (same, turned)]
    torch.testing.assert_close(scores, (both[0] + both[1]) / 2)
    assert not torch.allclose(both[0], both[1])


def test_every_piece_has_the_category_of_its_object():
    objects, model = PointSet.cat([a_cloud(10), a_cloud(15)]), StandIn(dims=3, categories=6)
    category = torch.tensor([2, 5])
    scores = CloudInfer(float32, fragments=every_third)(model, objects, category)
    expected = model(float32(objects), category).softmax(1)
    torch.testing.assert_close(scores, expected)


def test_a_point_in_no_crop_is_an_error():
    cover = partial(halves, overlap=-1.0)
    with pytest.raises(ValueError, match="points of the cloud are in no crop"):
        CloudInfer(float32, cover=cover)(StandIn(dims=3), a_cloud())


def test_a_cloud_of_one_point():
    infer = CloudInfer(centered, fragments=every_third, max_points=1)
    assert infer(StandIn(dims=3), a_cloud(1)).shape == (1, 4)


def test_images_are_refused():
    with pytest.raises(ValueError, match="expected a cloud, got an image"):
        CloudInfer()(StandIn(), PointSet.from_images(torch.randn(1, 3, 4, 4)))


def test_one_point_stands_for_its_grid_cell(monkeypatch):
    monkeypatch.setattr(module, "PART", 13)
    points, model = a_cloud(), StandIn(dims=3, place=1.0)
    scores = OnePerCell(CloudInfer(float32), 5.0)(model, points)
    cell = ((points.pos - points.pos.amin(0)) / 5.0).floor().long() @ torch.tensor([4, 2, 1])
    assert len(model.calls[0].feat) == cell.unique().numel() == 8
    own = CloudInfer(float32)(model, points)
    for one in cell.unique():
        members = (cell == one).nonzero()[:, 0]
        torch.testing.assert_close(scores[members], own[members[:1]].expand(len(members), -1))
