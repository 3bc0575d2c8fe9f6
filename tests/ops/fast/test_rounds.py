from __future__ import annotations

import numpy as np
import pytest
import torch

from pointmix.ops.fast import rounds
from pointmix.ops.sampling import farthest_points_plain


def plain(x: torch.Tensor, number: int, start: int) -> list[int]:
    ptr, out_ptr = torch.tensor([0, len(x)]), torch.tensor([0, number])
    return farthest_points_plain(x, ptr, out_ptr, torch.tensor([start])).tolist()


def shapes() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    ball = torch.randn(500, 3, generator=generator)
    side = torch.arange(24.0)
    return {
        "ball": ball,
        "sphere": ball / ball.norm(dim=1, keepdim=True),
        "plane": ball[:, :2].contiguous(),
        "line": ball[:, :1].contiguous(),
        "six dimensions": torch.randn(300, 6, generator=generator),
        "lattice": torch.cartesian_prod(side, side),
        "lattice in disorder": torch.cartesian_prod(side, side)[torch.randperm(576, generator=generator)],
        "cube": torch.cartesian_prod(*[side[:8]] * 3),
        "three of each": ball[:150].repeat(3, 1)[torch.randperm(450, generator=generator)],
        "dense and sparse": torch.cat([ball[:400] * 1e-3, ball[400:] + 4]),
        "crowd far away": torch.cat([torch.full((200, 3), 9.0), ball[:300]]),
        "equal": torch.ones(300, 3),
        "far from the origin": ball + 1000,
    }


SHAPES = shapes()


@pytest.mark.parametrize("first, pairs", [(1, 2**22), (64, 2**22), (8, 500)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SHAPES)
def test_same_picks_in_the_same_order(monkeypatch, name, dtype, first, pairs):
    x = SHAPES[name].to(dtype)
    monkeypatch.setattr(rounds, "FIRST", first / 4 ** x.shape[1])
    monkeypatch.setattr(rounds, "PAIRS", pairs)
    for number, start in ((len(x), 0), (len(x) // 3, 17)):
        assert rounds.farthest(x.numpy(), number, start).tolist() == plain(x, number, start)


@pytest.mark.parametrize("below", [0.3, 0.999])
def test_how_much_a_round_takes_on_does_not_matter(monkeypatch, below):
    monkeypatch.setattr(rounds, "FIRST", 8 / 4**3)
    monkeypatch.setattr(rounds, "BELOW", below)
    x = SHAPES["ball"]
    assert rounds.farthest(x.numpy(), 200, 3).tolist() == plain(x, 200, 3)


def test_rounds_are_few(monkeypatch):
    monkeypatch.setattr(rounds, "FIRST", 16 / 4**3)
    calls, one_round = [], rounds.one_round
    monkeypatch.setattr(rounds, "one_round", lambda *a: calls.append(1) or one_round(*a))
    rounds.farthest(SHAPES["ball"].numpy(), 250, 0)
    assert 0 < len(calls) < 60


def test_few_points_one_by_one():
    x = SHAPES["ball"][:40]
    for number in (1, 2, 39, 40):
        assert rounds.farthest(x.numpy(), number, 5).tolist() == plain(x, number, 5)


def test_reach_holds_what_rounds_below():
    d = np.float32(0.1)
    assert rounds.reach(d, 3) ** 2 > 0.1 and rounds.reach(d, 3) ** 2 < 0.1 * 1.001
    assert rounds.reach(np.float32(1e-40), 3) > 1e-20
