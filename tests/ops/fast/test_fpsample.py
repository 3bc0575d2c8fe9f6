from __future__ import annotations

import pytest
import torch

from pointmix.ops.sampling import farthest_points_plain

pytest.importorskip("fpsample", reason="fpsample is not installed")
from pointmix.ops.fast import fpsample as ours  # noqa: E402

PTR, OUT = torch.tensor([0, 200, 230]), torch.tensor([0, 150, 180])


def test_many_picks_from_any_start():
    pos, start = torch.randn(230, 3), torch.tensor([40, 29])
    assert torch.equal(ours.farthest_points(pos, PTR, OUT, start), farthest_points_plain(pos, PTR, OUT, start))


def test_the_order_of_equally_far_points_is_turned_where_needed(monkeypatch):
    pos = torch.tensor([[0.0], [1.0], [-1.0]])
    ptr, out_ptr, start = torch.tensor([0, 3]), torch.tensor([0, 2]), torch.tensor([0])
    assert ours.farthest_points(pos, ptr, out_ptr, start).tolist() == [0, 1]
    monkeypatch.setattr(ours, "LAST", not ours.LAST)
    assert ours.farthest_points(pos, ptr, out_ptr, start).tolist() == [0, 2]
