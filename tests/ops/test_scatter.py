from __future__ import annotations

import pytest
import torch

from pointmix.ops.scatter import segment_mean, segment_sum

INDEX = torch.tensor([2, 0, 2, 2, 4, 0])


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("op, reduce", [(segment_sum, torch.sum), (segment_mean, torch.mean)])
def test_against_a_loop(op, reduce, shape):
    x = torch.randn(6, *shape, dtype=torch.float64)
    expected = torch.stack([reduce(x[INDEX == s], 0) if (INDEX == s).any() else torch.zeros(shape) for s in range(6)])
    torch.testing.assert_close(op(x, INDEX, 6), expected.double())


@pytest.mark.parametrize("op", [segment_sum, segment_mean])
def test_gradients(op):
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: op(x, INDEX, 6), x)


@pytest.mark.parametrize("op", [segment_sum, segment_mean])
def test_no_points(op):
    assert torch.equal(op(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 2), torch.zeros(2, 3))


@pytest.mark.parametrize("op", [segment_sum, segment_mean])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_keeps_the_dtype(op, dtype):
    out = op(torch.ones(6, 2, dtype=dtype), INDEX, 5)
    assert out.dtype == dtype and out[4].tolist() == [1, 1]


@pytest.mark.parametrize("op", [segment_sum, segment_mean])
def test_nan_stays_in_its_segment(op):
    x = torch.ones(6, 2)
    x[4] = float("nan")
    out = op(x, INDEX, 5)
    assert out[4].isnan().all() and out[:4].isfinite().all()
