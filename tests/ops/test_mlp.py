from __future__ import annotations

import pytest
import torch

from pointmix.ops import mlp as ops
from pointmix.ops.mlp import mlp, mlp_plain


def arguments(points: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    shapes = [(points, 3), (8, 3), (8,), (5, 8), (5,), (5,)]
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("points", [0, 1, 7, 24])
def test_equals_its_plain_twin(points, monkeypatch):
    monkeypatch.setattr(ops, "CACHED", 8 * 8)  # eight points a piece
    args = arguments(points)
    weight = torch.randn(points, 5, dtype=torch.float64)
    got, expected = mlp(*args), mlp_plain(*args)
    torch.testing.assert_close(got, expected)
    for a, b in zip(
        torch.autograd.grad(got, args, weight), torch.autograd.grad(expected, args, weight), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_gradcheck(monkeypatch):
    monkeypatch.setattr(ops, "CACHED", 8 * 2)
    assert torch.autograd.gradcheck(mlp, arguments(5))


def test_follows_autocast():
    args = arguments(9, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = mlp(*args)
    assert y.dtype == torch.float32  # that of the scale
    grads = torch.autograd.grad(y.float().sum(), args)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in grads)
    torch.testing.assert_close(y.float(), mlp_plain(*args), rtol=0.05, atol=0.05)


def test_keeps_only_its_input():
    kept = []
    args = arguments(50)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        mlp(*args)
    assert sum(kept) <= sum(t.numel() for t in args)
