from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from pointmix.ops.query_length import query_length, query_length_reference


def arguments(points: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in ((points, 5), (6, 5), (6,))]


@pytest.mark.parametrize("points", [0, 1, 7, 24])
def test_equals_its_reference_form(points, monkeypatch):
    monkeypatch.setattr("pointmix.ops.mlp.pieces.CACHED", 8 * 6 * 8)  # eight points a piece
    args, weight = arguments(points), torch.randn(points, 2, dtype=torch.float64)
    got, expected = (f(*args, 2) for f in (query_length, query_length_reference))
    torch.testing.assert_close(got, expected)
    grads = [torch.autograd.grad(y, args, weight) for y in (got, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_gradcheck(monkeypatch):
    monkeypatch.setattr("pointmix.ops.mlp.pieces.CACHED", 8 * 6 * 2)
    assert torch.autograd.gradcheck(lambda *args: query_length(*args, 3), arguments(5))


def test_a_query_of_no_length_has_no_gradient():
    x, w, b = torch.zeros(3, 5), torch.randn(6, 5), torch.zeros(6)
    args = [t.requires_grad_() for t in (x, w, b)]
    size = query_length(*args, 2)
    assert (size > 0).all()
    assert all((g == 0).all() for g in torch.autograd.grad(size.sum(), args))


def test_keeps_no_queries():
    kept, args = [], arguments(50)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        query_length(*args, 2)
    assert (50, 6) not in kept and (50, 2) in kept


def test_follows_autocast():
    args = arguments(9, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        size = query_length(*args, 2)
        assert query_length_reference(*args, 2).dtype == size.dtype == torch.bfloat16
    grads = torch.autograd.grad(size.float().sum(), args)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in grads)
    torch.testing.assert_close(size.float(), query_length_reference(*args, 2), rtol=0.05, atol=0.05)


def test_forward_mode_derivatives_are_not_dropped():
    x, w, b = (t.detach() for t in arguments(7, torch.float32))
    tangent, found = torch.randn_like(x), []
    for f in (query_length, query_length_reference):
        with torch.no_grad(), forward_ad.dual_level():
            found.append(forward_ad.unpack_dual(f(forward_ad.make_dual(x, tangent), w, b, 2)).tangent)
    assert found[1].abs().sum() > 0
    torch.testing.assert_close(*found)
