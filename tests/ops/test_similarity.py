from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix.ops.similarity import cosine


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_against_torch(batch):
    x, y = torch.randn(*batch, 4, 5, dtype=torch.float64), torch.randn(*batch, 6, 5, dtype=torch.float64)
    expected = F.cosine_similarity(x[..., :, None, :], y[..., None, :, :], dim=-1)
    torch.testing.assert_close(cosine(x, y), expected)


def test_does_not_depend_on_length():
    x, y = torch.randn(4, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    torch.testing.assert_close(cosine(1e-6 * x, 1e6 * y), cosine(x, y))


def test_zero_vectors_are_like_nothing():
    x, y = torch.zeros(2, 5), torch.randn(3, 5)
    assert torch.equal(cosine(x, y), torch.zeros(2, 3)) and torch.equal(cosine(y, x), torch.zeros(3, 2))
    assert torch.equal(cosine(x, x), torch.zeros(2, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_zero_vectors_in_half_precision(dtype):
    x, y = torch.zeros(2, 5, dtype=dtype), torch.randn(3, 5).to(dtype)
    assert torch.equal(cosine(x, y).float(), torch.zeros(2, 3)) and torch.equal(cosine(y, x).float(), torch.zeros(3, 2))


@pytest.mark.parametrize("exponent", [-15, -8, -3, 0])
def test_gradients_are_finite_for_short_vectors(exponent):
    x = (torch.randn(3, 5, dtype=torch.float64) * 10.0**exponent).requires_grad_()
    y = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    cosine(x, y).sum().backward()
    assert x.grad.isfinite().all() and y.grad.isfinite().all()


def test_gradients():
    x, y = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    assert torch.autograd.gradcheck(cosine, (x, y))
