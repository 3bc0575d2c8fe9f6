from __future__ import annotations

import pytest
import torch

from pointmix.ops import mlp as ops
from pointmix.ops.mlp import mlp, mlp_reference, pieces


def arguments(points: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    shapes = [(points, 3), (8, 3), (8,), (5, 8), (5,), (5,)]
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("points", [0, 1, 7, 24])
def test_equals_its_reference_form(points, monkeypatch):
    monkeypatch.setattr(pieces, "CACHED", 8 * 8 * 8)  # eight points a piece
    args = arguments(points)
    weight = torch.randn(points, 5, dtype=torch.float64)
    got, expected = mlp(*args), mlp_reference(*args)
    torch.testing.assert_close(got, expected)
    for a, b in zip(torch.autograd.grad(got, args, weight), torch.autograd.grad(expected, args, weight), strict=True):
        torch.testing.assert_close(a, b)


def test_gradcheck(monkeypatch):
    monkeypatch.setattr(pieces, "CACHED", 8 * 8 * 2)
    assert torch.autograd.gradcheck(mlp, arguments(5))
    assert torch.autograd.gradcheck(mlp, [*arguments(5), torch.randn(5, 5, dtype=torch.float64).requires_grad_()])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_adds_to_a_residual(dtype, monkeypatch):
    monkeypatch.setattr(pieces, "CACHED", 8 * 8 * 4)
    args, plus = arguments(21, dtype), torch.randn(21, 5, dtype=dtype).requires_grad_()
    got, expected = mlp(*args, plus=plus), mlp_reference(*args, plus=plus)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(expected, plus + mlp_reference(*args))
    grads = [torch.autograd.grad(y.square().sum(), [*args, plus]) for y in (got, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_follows_autocast():
    args = arguments(9, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = mlp(*args)
    assert y.dtype == torch.float32  # that of the scale
    grads = torch.autograd.grad(y.float().sum(), args)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in grads)
    torch.testing.assert_close(y.float(), mlp_reference(*args), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_only_its_input(dtype):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        mlp(*arguments(50, dtype))
    assert [shape for shape in kept if shape[0] == 50] == [(50, 3)]


@pytest.mark.parametrize("narrow", [1, 128])
def test_kept_or_computed_again(narrow, monkeypatch):
    """Inputs wider than NARROW keep their hidden layer, in training only."""
    monkeypatch.setattr(pieces, "CACHED", 8 * 8 * 4)
    monkeypatch.setattr(ops, "NARROW", narrow)
    args, kept = arguments(21), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        got = mlp(*args)
    assert ((21, 8) in kept) == (narrow == 1)
    grads = [torch.autograd.grad(y.square().sum(), args) for y in (got, mlp_reference(*args))]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("trained", range(6))
def test_only_the_gradients_that_are_wanted(trained, monkeypatch):
    monkeypatch.setattr(pieces, "CACHED", 8 * 8 * 4)
    args = [t.detach().requires_grad_(i == trained) for i, t in enumerate(arguments(9))]
    got, expected = (torch.autograd.grad(f(*args).square().sum(), args[trained])[0] for f in (mlp, mlp_reference))
    torch.testing.assert_close(got, expected)


def test_gradients_in_float16_stay_finite():
    """Sums over many points of what a small scale takes down later."""
    args = [t.detach().half() for t in arguments(40000, torch.float32)]
    args[5] = torch.full((5,), 1e-5)
    args = [t.requires_grad_() for t in args]
    (mlp(*args) * 1000).sum().backward()
    assert all(t.grad.isfinite().all() for t in args)


def test_the_backward_pass_within_autocast(monkeypatch):
    """Autocast would form products in bfloat16, which the kernel would take for float32."""
    monkeypatch.setattr(ops, "NARROW", 1)  # no tiles
    args = arguments(40, torch.float32)
    y, again = mlp(*args), mlp(*args)
    expected = torch.autograd.grad(y.square().sum(), args)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(again.square().sum(), args)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
