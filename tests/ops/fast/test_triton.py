from __future__ import annotations

import pytest
import torch

from pointmix.ops import use_backend
from pointmix.ops.neighbors import knn, knn_plain
from pointmix.ops.sampling import farthest_point_sampling

pytest.importorskip("triton", reason="triton is not installed")
kernels = pytest.importorskip("pointmix.ops.fast.triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PTR = torch.tensor([0, 300, 301, 340], device=DEVICE)


@pytest.mark.parametrize("k", [16, 33])
def test_many_blocks_of_points_and_of_queries(k):
    pos = torch.randn(340, 3, device=DEVICE)
    with use_backend("triton"):
        index = knn(pos, PTR, pos, PTR, k)
    expected = knn_plain(pos, PTR, pos, PTR, k)
    assert torch.equal(index[:300], expected[:300]) and (index[300] == 300).all()
    assert torch.equal(index[301:], expected[301:])


def test_too_much_for_the_chip(monkeypatch):
    pos = torch.randn(340, 3, device=DEVICE)
    monkeypatch.setattr(kernels, "ON_CHIP", 256)
    with use_backend("triton"):
        with pytest.raises(ValueError, match="backend 'triton' takes sets of up to 256 points, got 300"):
            farthest_point_sampling(pos, PTR, 3)
        with pytest.raises(ValueError, match="backend 'triton' takes k of up to 512, got 600"):
            knn(pos, PTR, pos, PTR, 600)
