from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from pointmix.ops import mlp as ops
from pointmix.ops import use_backend
from pointmix.ops.kernels import tiles
from pointmix.ops.mlp import mlp, mlp_reference

module = pytest.importorskip(
    "pointmix.ops.mlp.float32", reason="torch does not multiply with MKL", exc_type=ImportError
)


@pytest.fixture(params=[(1, True), (3, True), (3, False)], ids=["1", "3", "3, MKL alone"])
def threads(request: pytest.FixtureRequest, monkeypatch):
    """Small tiles, and all work is shared; with and without oneDNN."""
    before, (number, onednn) = torch.get_num_threads(), request.param
    if not onednn:
        monkeypatch.setattr(module, "brgemm_float32_address", lambda: 0)
    monkeypatch.setattr(tiles, "MIN_MULTIPLICATIONS", 0)
    monkeypatch.setattr(module, "TILE", 24 * 10)  # ten points
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


def arguments(points: int, *, channels: int = 7, hidden: int = 24, out: int = 5) -> list[torch.Tensor]:
    shapes = [(points, channels), (hidden, channels), (hidden,), (out, hidden), (out,), (out,), (points, out)]
    return [torch.randn(shape).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("points", [0, 1, 10, 95])
def test_values_and_gradients(points, residual, threads, monkeypatch):
    monkeypatch.setattr(ops.pieces, "forward", None)  # not used
    monkeypatch.setattr(ops.pieces, "backward", None)
    args, weight = arguments(points)[: None if residual else -1], torch.randn(points, 5)
    exact = [t.detach().double().requires_grad_() for t in args]
    got, expected = mlp(*args), mlp_reference(*exact)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad(got, args, weight), torch.autograd.grad(expected, exact, weight.double())
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


def test_onednn_compiles_no_kernel_for_few_points(threads):
    products = [module._sizes(*(arguments(points)[i] for i in (0, 1, 3)), False).other for points in (9, 10)]
    assert products == [0, module.brgemm_float32_address()]


def test_in_pieces_on_request():
    args = arguments(40)
    with use_backend("torch"):
        expected = mlp(*args)
    found = mlp(*args)
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_equal_runs_are_equal(threads):
    args = arguments(300, channels=32, hidden=64)
    runs = [torch.autograd.grad(mlp(*args).square().sum(), args) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_nan_stays():
    args = [t.detach() for t in arguments(6)]
    args[0][2, 1] = torch.nan
    assert mlp(*args).isnan().all(1).nonzero().flatten().tolist() == [2]


@pytest.mark.parametrize("wrong", [0, 1, 2, 3, 4, 6])
def test_kernels_get_no_wrong_operand(wrong, monkeypatch):
    monkeypatch.setattr(module, "run", None)
    args = [t.detach() for t in arguments(20)]
    for bad in (args[wrong].bfloat16(), args[wrong][..., :-1]):
        try:
            found = mlp(*args[:wrong], bad, *args[wrong + 1 :])
        except (RuntimeError, TypeError):  # torch, or a checked annotation, says what is wrong
            continue
        assert wrong == 6 and bad.dtype == torch.bfloat16
        torch.testing.assert_close(found, mlp_reference(*args[:-1], bad), rtol=1e-5, atol=1e-5)


def test_columns_before_rows():
    args = [t.detach().t().contiguous().t().requires_grad_() if t.ndim == 2 else t for t in arguments(30)]
    assert not args[0].is_contiguous()
    y, expected = mlp(*args), mlp_reference(*args)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad(y.sum(), args), torch.autograd.grad(expected.sum(), args)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
    x, w1, b1, w2 = (t.detach() for t in args[:4])
    torch.library.opcheck(torch.ops.pointmix.mlp_float32_backward, (x, w1, b1, w2, torch.randn(30, 5)))


def test_forward_mode_derivatives():
    args = [t.detach() for t in arguments(20)]
    with forward_ad.dual_level():
        args[0] = forward_ad.make_dual(args[0], torch.randn(20, 7))
        found, expected = (forward_ad.unpack_dual(op(*args)).tangent for op in (mlp, mlp_reference))
    torch.testing.assert_close(found, expected)


def test_counts_its_operations():
    args = arguments(9)
    with FlopCounterMode(display=False) as counter:
        y = mlp(*args)
    assert counter.get_total_flops() == 2 * 9 * (7 * 24 + 24 * 5)
    with counter:
        y.sum().backward()
    assert counter.get_total_flops() == 2 * 9 * (3 * 7 * 24 + 2 * 24 * 5)
