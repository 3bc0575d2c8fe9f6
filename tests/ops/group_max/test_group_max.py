from __future__ import annotations

import pytest
import torch

from pointmix.ops.group_max import group_max, group_max_reference, numba


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups, k", [(0, 3), (5, 1), (40, 7)])
def test_values_and_gradients(groups, k, dtype, threads, monkeypatch):
    """Many are equal, and share the gradient."""
    monkeypatch.setattr(numba, "MIN_NUMBERS", 0)
    x, probe = torch.randint(-3, 3, (groups, k, 19)).to(dtype).requires_grad_(), torch.randn(groups, 19).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    y = group_max(x)
    dx = torch.autograd.grad(y, x, probe)[0]
    torch.set_num_threads(before)
    expected = group_max_reference(x)
    assert torch.equal(y, expected) and type(y.grad_fn) is not type(expected.grad_fn)
    torch.testing.assert_close(dx, torch.autograd.grad(expected, x, probe)[0])


def test_nan_stays():
    x = torch.randn(4, 5, 6)
    x[1, 0, 2] = x[2, 4, 3] = torch.nan
    assert torch.equal(group_max(x.requires_grad_()).isnan(), x.isnan().any(1))


def test_rows_that_are_not_contiguous():
    x = torch.randn(6, 5, 4).transpose(0, 2).requires_grad_()
    assert torch.equal(group_max(x), x.amax(1))
    torch.testing.assert_close(
        *(torch.autograd.grad(f(x).square().sum(), x)[0] for f in (group_max, group_max_reference))
    )
