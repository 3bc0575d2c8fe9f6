from __future__ import annotations

import pytest
import torch
from torch import nn

from pointmix import PointSet
from pointmix.tasks.classify_points.voting import Voting


class Extent(nn.Module):
    """Logits that follow the proportions of a cloud; keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, points):
        self.seen.append(points)
        return torch.stack([cloud.pos.amax(0) for cloud in points.unbind()])  # (B, 3)


CLOUDS = PointSet.cat([PointSet.from_points(torch.rand(n, 3), torch.rand(n, 2)) for n in (4, 7)])


def test_mean_of_probabilities_over_scalings():
    model = Extent()
    logits = Voting(model, votes=4, low=0.5, high=2.0)(CLOUDS)
    expected = torch.stack([Extent()(points).softmax(1) for points in model.seen]).mean(0)
    torch.testing.assert_close(logits.exp(), expected)
    assert torch.equal(model.seen[0].pos, CLOUDS.pos) and all(torch.equal(p.feat, CLOUDS.feat) for p in model.seen)
    for points in model.seen[1:]:
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
