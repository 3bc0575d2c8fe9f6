from __future__ import annotations

import pytest
import torch

from pointmix.ops.similarity import length


def test_is_the_norm():
    x = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(length(x), x.square().sum(-1).sqrt())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_can_be_divided_by(dtype):
    x = torch.zeros(2, 5, dtype=dtype)
    assert length(x).dtype == dtype and torch.equal(x / length(x)[:, None], x)


@pytest.mark.parametrize("exponent", [-15, -8, -3, 0])
def test_gradients_are_finite_for_short_vectors(exponent):
    x = (torch.randn(3, 5, dtype=torch.float64) * 10.0**exponent).requires_grad_()
    (x / length(x)[:, None]).sum().backward()
    assert x.grad.isfinite().all()


def test_gradients():
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(length, (x,))
