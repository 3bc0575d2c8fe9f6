from __future__ import annotations

import pytest
import torch
from torch import nn

from pointmix import PointSet
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.transforms import unit_sphere
from pointmix.tasks.classify_points.metrics import VotedConfusion
from pointmix.tasks.classify_points.voting import Voting, points_seen, voting


class Extent(nn.Module):
    """Logits that follow the proportions of a cloud; keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, points):
        self.seen.append(points)
        return torch.stack([cloud.pos.amax(0) for cloud in points.unbind()])  # (B, 3)

    def by_vote(self, *clouds):
        """What it was given in each vote, on this many clouds."""
        sets = iter([cloud for points in self.seen for cloud in points.unbind()])
        found = [PointSet.cat([next(sets) for _ in range(number)]) for number in clouds]
        assert next(sets, None) is None
        return found


CLOUDS = PointSet.cat([PointSet.from_points(torch.rand(n, 3), torch.rand(n, 2)) for n in (4, 7)])


def test_mean_of_probabilities_over_scalings():
    model = Extent()
    logits = Voting(model, votes=4, low=0.5, high=2.0)(CLOUDS)
    seen = model.by_vote(2, 2, 2, 2)
    expected = torch.stack([Extent()(points).softmax(1) for points in seen]).mean(0)
    torch.testing.assert_close(logits.exp(), expected)
    assert torch.equal(seen[0].pos, CLOUDS.pos) and all(torch.equal(points.feat, CLOUDS.feat) for points in seen)
    for points in seen[1:]:
        factors = points.pos / CLOUDS.pos  # (N, 3)
        torch.testing.assert_close(factors, factors[:1].expand_as(factors))  # the same for all clouds
        assert len(set(factors[0].tolist())) == 3 and 0.5 <= factors.min() and factors.max() <= 2


def test_one_vote_is_the_model_itself():
    torch.testing.assert_close(Voting(Extent(), votes=1)(CLOUDS), Extent()(CLOUDS).log_softmax(1))


def test_seeded_and_independent_of_the_batch():
    torch.manual_seed(1)
    first = Voting(Extent(), votes=5)(CLOUDS)
    torch.manual_seed(2)
    assert torch.equal(first, Voting(Extent(), votes=5)(CLOUDS))
    assert not torch.equal(first, Voting(Extent(), votes=5, seed=1)(CLOUDS))
    alone = torch.cat([Voting(Extent(), votes=5)(cloud) for cloud in CLOUDS.unbind()])
    torch.testing.assert_close(alone, first)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"votes": 0}, "votes must be at least 1, got 0"),
        ({"low": 0.0}, "low must be above 0, got 0.0"),
        ({"low": 2.0, "high": 1.0}, "voting needs"),
    ],
)
def test_bad_settings(given, message):
    with pytest.raises(ValueError, match=message):
        Voting(Extent(), **given)


# ---- parts ----------------------------------------------------------------------------------------------------------


def test_every_point_is_seen_once_in_equal_parts():
    model = Extent()
    logits = Voting(model, votes=None, points=3)(CLOUDS)  # of 4 and 7 points: 2 parts and 3
    votes = model.by_vote(2, 2, 1)
    assert [points.ptr.diff().tolist() for points in votes] == [[2, 3], [2, 2], [2]]
    for index, cloud in enumerate(CLOUDS.unbind()):
        parts = [points.unbind()[index if points.num_sets == 2 else 0] for points in votes[: 2 + index]]
        for key in ("pos", "feat"):
            seen = torch.cat([getattr(part, key) for part in parts])
            assert sorted(seen.tolist()) == sorted(getattr(cloud, key).tolist())
        chances = torch.stack([part.pos.amax(0).softmax(0) for part in parts])
        torch.testing.assert_close(logits[index].exp(), chances.mean(0))


def test_parts_do_not_depend_on_the_batch_or_the_global_seed():
    first = Voting(Extent(), votes=None, points=3)(CLOUDS)
    torch.manual_seed(5)
    alone = torch.cat([Voting(Extent(), votes=None, points=3)(cloud) for cloud in CLOUDS.unbind()])
    torch.testing.assert_close(alone, first)


def test_small_clouds_stay_as_they_are():
    model = Extent()
    Voting(model, votes=None, points=7)(CLOUDS)
    assert len(model.seen) == 1 and torch.equal(model.seen[0].pos, CLOUDS.pos)


@pytest.mark.parametrize("votes, most", [(None, 5), (5, 5), (3, 1000)])
def test_votes_are_joined_and_counted_the_same(monkeypatch, votes, most):
    """Passes of at most PASS_POINTS points, or of one vote on every cloud; the results are those of single votes."""
    clouds = PointSet.cat([PointSet.from_points(torch.rand(n, 3)) for n in (2, 30, 9)])
    monkeypatch.setattr("pointmix.tasks.classify_points.voting.PASS_POINTS", most)
    model = Extent()
    logits = Voting(model, votes=votes, points=4)(clouds)
    sizes = [len(points.pos) for points in model.seen]
    assert max(sizes) <= max(most, 10) and (most > 10) == (len(sizes) == 1)  # 10: one vote on every cloud
    monkeypatch.setattr("pointmix.tasks.classify_points.voting.PASS_POINTS", 1)
    single = Extent()
    alone = torch.cat([Voting(single, votes=votes, points=4)(cloud) for cloud in clouds.unbind()])
    torch.testing.assert_close(logits, alone)
    assert all(points.num_sets == 1 for points in single.seen)


def test_a_cloud_is_divided_once_for_all_of_its_parts(monkeypatch):
    drawn, randperm = [], torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **given: drawn.append(n) or randperm(n, **given))
    Voting(Extent(), votes=None, points=3)(CLOUDS)
    assert drawn == [4, 7]


def test_the_part_that_is_drawn_is_the_first():
    voting_ = Voting(model := Extent(), votes=1, points=3)
    voting_(CLOUDS)
    assert torch.equal(voting_.part(CLOUDS).pos, model.seen[0].pos)


def test_votes_beyond_one_look_are_scaled_and_of_other_parts():
    model, cloud = Extent(), CLOUDS.unbind()[1]
    Voting(model, votes=5, points=4, low=2.0, high=3.0)(cloud)  # 2 parts
    seen = model.by_vote(1, 1, 1, 1, 1)
    places = [{tuple(feat) for feat in points.feat.tolist()} for points in seen]
    assert len(places) == 5 and places[0] | places[1] == places[2] | places[3] and places[0] != places[2]
    largest = cloud.pos.amax(0)
    assert all((points.pos <= largest).all() for points in seen[:2])
    for points in seen[2:]:
        same = (points.feat[:, None] == cloud.feat).all(2).nonzero()[:, 1]
        factors = points.pos / cloud.pos[same]
        assert 2 <= factors.min() and factors.max() <= 3
        torch.testing.assert_close(factors, factors[:1].expand_as(factors))


def test_each_part_is_normalized_by_itself():
    model = Extent()
    Voting(model, votes=None, points=3, normalize=unit_sphere)(CLOUDS)
    for points in model.seen:
        for cloud in points.unbind():
            assert cloud.pos.norm(dim=1).max() == pytest.approx(1) and cloud.pos.mean(0).abs().max() < 1e-6


@pytest.mark.parametrize(
    "votes, data, text",
    [
        (None, {"sampling": "random", "points": 8}, "all points of each cloud, in random parts of at most 8"),
        (1, {"sampling": "random", "points": 8}, "1 random part of each cloud, of at most 8 points"),
        (
            3,
            {"sampling": "random", "max_points": 8, "points": None},
            "3 random parts of each cloud, of at most 8 points",
        ),
        (None, {"sampling": "random", "points": None}, "all points of each cloud"),
        (None, {"sampling": "first", "points": 8}, "the first 8 points of each cloud"),
        (2, {"sampling": "fps", "points": 8}, "8 farthest points"),
    ],
)
def test_what_is_seen_is_said(votes, data, text):
    cfg = PointDataConfig(**data)
    assert points_seen(votes, cfg) == text
    is_voting = isinstance(voting(Extent(), votes, cfg), Voting)
    assert is_voting == (text.endswith("parts of at most 8") or votes is not None)


def test_the_metric_sees_all_points_and_votes_once():
    cfg = PointDataConfig(sampling="random", points=3, normalize="none")
    model, targets = Extent(), torch.tensor([0, 2])
    VotedConfusion(3, cfg).batch_sums(model, (CLOUDS, targets))
    assert sum(len(points.pos) for points in model.seen) == 11
    model = Extent()
    VotedConfusion(3, cfg).batch_sums(Voting(model, votes=1, points=3), (CLOUDS, targets))
    assert len(model.seen) == 1
