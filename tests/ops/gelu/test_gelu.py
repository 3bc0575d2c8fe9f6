from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix.ops.gelu import gelu_backward_, gelu_backward_reference_
from pointmix.ops.gelu import numba as module


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch):
    """All work is shared, however small."""
    before = torch.get_num_threads()
    monkeypatch.setattr(module, "MIN_NUMBERS", 0)
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def gradient(x: torch.Tensor) -> torch.Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(F.gelu(x).sum(), x)[0]


@pytest.mark.parametrize("points", [0, 1, 2, 50])
def test_value_gradient_and_sum(points, threads):
    x, dy, total = torch.randn(points, 37) * 3, torch.randn(points, 37), torch.randn(37)
    exact = x.double()
    dx = dy.double() * gradient(exact)
    got = x.clone(), dy.clone(), total.clone()
    y = gelu_backward_(*got)
    assert torch.equal(got[0], x)
    for found, expected in zip((y, *got[1:]), (F.gelu(exact), dx, total + dx.sum(0)), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=3e-6)


def test_no_less_exact_than_torch():
    x = torch.linspace(-15, 15, 100_000)[:, None]
    dx = torch.ones_like(x)
    value = gelu_backward_(x, dx, torch.zeros(1))
    exact = F.gelu(x.double()), gradient(x.double())
    for found, torchs, expected in zip((value, dx), (F.gelu(x), gradient(x)), exact, strict=True):
        assert (found - expected).abs().max() <= 1.5 * (torchs - expected).abs().max()


def test_bfloat16_is_rounded_to_the_nearest(threads):
    x, dy = (torch.randn(40, 33).bfloat16() for _ in range(2))
    single = x.float(), dy.float(), torch.zeros(33)
    expected = gelu_backward_(*single)
    found = x.clone(), dy.clone(), torch.zeros(33)
    assert torch.equal(gelu_backward_(*found), expected.bfloat16()) and torch.equal(found[1], single[1].bfloat16())
    torch.testing.assert_close(found[2], single[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_stays(dtype):
    x, dy = torch.randn(4, 20).to(dtype), torch.randn(4, 20).to(dtype)
    x[1, 3], dy[2, 5] = torch.nan, torch.nan
    total = torch.zeros(20)
    y = gelu_backward_(x, dy, total)
    assert y.isnan().nonzero().tolist() == [[1, 3]] and dy.isnan().nonzero().tolist() == [[1, 3], [2, 5]]
    assert total.isnan().nonzero().flatten().tolist() == [3, 5]


def test_reference_form():
    x, dy = torch.randn(9, 5, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)
    got = x.clone(), dy.clone(), torch.ones(5, dtype=torch.float64)
    y = gelu_backward_reference_(*got)
    expected = F.gelu(x), dy * gradient(x), 1 + (dy * gradient(x)).sum(0)
    for a, b in zip((y, *got[1:]), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_equal_runs_are_equal():
    x, dy = torch.randn(900, 64), torch.randn(900, 64)
    runs = []
    for _ in range(2):
        runs.append((x.clone(), dy.clone(), torch.zeros(64)))
        gelu_backward_(*runs[-1])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("dy", [torch.ones(9, 5).bfloat16(), torch.ones(4, 5), torch.ones(5, 9).t()])
def test_the_kernel_takes_no_other_gradient(dy):
    """It would read and write past the end, or another order."""
    with pytest.raises(ValueError, match="^x and dy must be contiguous, of one dtype and shape, got "):
        module.gelu_backward_(torch.ones(9, 5), dy, torch.zeros(5))
