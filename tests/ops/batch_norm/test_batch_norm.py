from __future__ import annotations

import pytest
import torch

from pointmix.ops.batch_norm import batch_norm_relu, batch_norm_relu_reference
from pointmix.ops.batch_norm import numba as module


@pytest.fixture(params=[1, 3])
def blocks(request: pytest.FixtureRequest, monkeypatch):
    """Many blocks, in one thread or several."""
    before = torch.get_num_threads()
    monkeypatch.setattr(module, "BLOCK", 64)
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def tensors(rows: int, channels: int, residual: bool, dtype: torch.dtype) -> list[torch.Tensor]:
    shapes = [(rows, channels), (channels,), (channels,), *[(rows, channels)] * residual]
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def results(form, given: list[torch.Tensor]) -> list[torch.Tensor]:
    """y, mean, variance, and the gradients."""
    x, weight, bias, *plus = given
    y, mean, var = form(x, weight, bias, 1e-5, *plus)
    probe = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
    return [y, mean, var, *torch.autograd.grad((y * probe).sum(), given)]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("rows, channels", [(2, 3), (50, 17), (33, 100)])
def test_is_the_reference_form(rows, channels, residual, blocks):
    given = tensors(rows, channels, residual, torch.float64)
    for found, expected in zip(results(batch_norm_relu, given), results(batch_norm_relu_reference, given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_statistics_of_values_far_from_zero():
    """The sum of squares alone would lose them."""
    x = torch.randn(5000, 3, dtype=torch.float64) + 1000
    one = torch.ones(3, requires_grad=True)
    _, mean, var = batch_norm_relu(x.float(), one, one, 1e-5)
    torch.testing.assert_close(mean.double(), x.float().double().mean(0), rtol=3e-7, atol=0)
    torch.testing.assert_close(var.double(), x.float().double().var(0, correction=0), rtol=1e-4, atol=0)


def test_equal_runs_and_any_number_of_threads_are_equal(blocks):
    given = tensors(100, 20, True, torch.float32)
    first, second = results(batch_norm_relu, given), results(batch_norm_relu, given)
    torch.set_num_threads(2)
    for tensor, *others in zip(first, second, results(batch_norm_relu, given), strict=True):
        assert all(torch.equal(tensor, other) for other in others)


def test_nan_stays():
    x, weight, bias = tensors(10, 2, False, torch.float32)
    with torch.no_grad():
        x[3, 1] = torch.nan
    y = batch_norm_relu(x, weight, bias, 1e-5)[0]
    assert y[:, 1].isnan().all() and not y[:, 0].isnan().any()
