from __future__ import annotations

import pytest
import torch

from pointmix.ops import mlp as ops
from pointmix.ops import use_backend
from pointmix.ops.kernels import tiles
from pointmix.ops.mlp import mlp, mlp_reference

module = pytest.importorskip(
    "pointmix.ops.mlp.bfloat16", reason="torch has no bfloat16 kernels for this processor", exc_type=ImportError
)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch):
    """Small tiles, and all work is shared."""
    before = torch.get_num_threads()
    monkeypatch.setattr(tiles, "MIN_MULTIPLICATIONS", 0)
    monkeypatch.setattr(module, "TILE", 24 * 10)  # ten points
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def arguments(points: int, *, channels: int = 8, hidden: int = 24, out: int = 6) -> list[torch.Tensor]:
    """The numbers of features and weights are bfloat16, so that autocast rounds none of them."""
    shapes = [(points, channels), (hidden, channels), (hidden,), (out, hidden), (out,), (out,), (points, out)]
    args = [torch.randn(shape).bfloat16().float() for shape in shapes]
    args[5] = torch.full((out,), 0.25)  # times a weight is still bfloat16
    return [t.requires_grad_() for t in args]


def autocast_mlp(*args: torch.Tensor | None) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return mlp(*args)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("points", [0, 1, 10, 95])
def test_values_and_gradients(points, residual, threads, monkeypatch):
    monkeypatch.setattr(ops.pieces, "forward", None)  # not used
    monkeypatch.setattr(ops.pieces, "backward", None)
    args, weight = arguments(points)[: None if residual else -1], torch.randn(points, 6)
    exact = [t.detach().double().requires_grad_() for t in args]
    got, expected = autocast_mlp(*args), mlp_reference(*exact)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-2, atol=2e-2)
    grads = torch.autograd.grad(got, args, weight), torch.autograd.grad(expected, exact, weight.double())
    for a, b in zip(*grads, strict=True):
        error = torch.linalg.vector_norm(a.double() - b)
        assert error <= 8e-3 * torch.linalg.vector_norm(b) + 1e-6


def test_nearer_to_the_exact_result_than_torch():
    args = arguments(2000, channels=32, hidden=128, out=32)
    expected = mlp_reference(*(t.detach().double() for t in args))
    found = autocast_mlp(*args)
    with use_backend("torch"):
        torchs = autocast_mlp(*args)
    errors = [torch.linalg.vector_norm(y.detach() - expected) for y in (found, torchs)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("shape", [dict(channels=7), dict(hidden=23), dict(out=5), dict(channels=26)])
def test_odd_widths_go_to_torch(shape):
    args = arguments(30, **shape)
    found = autocast_mlp(*args)
    with use_backend("torch"):
        assert torch.equal(found, autocast_mlp(*args))


def test_equal_runs_are_equal(threads):
    args = arguments(300, channels=32, hidden=64)
    runs = [torch.autograd.grad(autocast_mlp(*args).square().sum(), args) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_columns_before_rows():
    args = [t.detach().t().contiguous().t().requires_grad_() if t.ndim == 2 else t for t in arguments(30)]
    assert not args[0].is_contiguous()
    dx, *_ = torch.autograd.grad(autocast_mlp(*args).sum(), args)
    expected, *_ = torch.autograd.grad(mlp_reference(*args).sum(), args)
    torch.testing.assert_close(dx, expected, rtol=5e-2, atol=0.5)


def test_without_onednn():
    args = arguments(30)
    expected = autocast_mlp(*args)
    with torch.backends.mkldnn.flags(enabled=False):
        found = autocast_mlp(*args)
        grads = torch.autograd.grad(expected.sum(), args)  # of a forward pass with it
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0.3)
    for a, b in zip(grads, torch.autograd.grad(mlp_reference(*args).sum(), args), strict=True):
        assert torch.linalg.vector_norm(a - b) <= 2e-2 * torch.linalg.vector_norm(b)


def test_nan_stays():
    args = [t.detach() for t in arguments(6)]
    args[0][2, 1] = torch.nan
    assert autocast_mlp(*args).isnan().all(1).nonzero().flatten().tolist() == [2]
