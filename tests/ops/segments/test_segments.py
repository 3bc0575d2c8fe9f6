from __future__ import annotations

import pytest
import torch

from pointmix.ops import use_backend
from pointmix.ops.dispatch import BACKENDS
from pointmix.ops.segments import segment_max, segment_mean, segment_softmax, segment_sum

INDEX = torch.tensor([2, 0, 2, 2, 4, 0])
REDUCTIONS = {segment_sum: torch.sum, segment_mean: torch.mean, segment_max: torch.amax}
OPS = (*REDUCTIONS, segment_softmax)


@pytest.fixture(params=["torch", "torch_scatter"])
def backend(request: pytest.FixtureRequest):
    there = BACKENDS[request.param]
    if not there.installed:
        pytest.skip(there.problem)
    with use_backend(request.param):
        yield request.param


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("op", REDUCTIONS)
def test_against_a_loop(backend, op, shape):
    x = torch.randn(6, *shape, dtype=torch.float64) - 5
    of_one = REDUCTIONS[op]
    expected = torch.stack([of_one(x[INDEX == s], 0) if (INDEX == s).any() else torch.zeros(shape) for s in range(6)])
    torch.testing.assert_close(op(x, INDEX, 6), expected.double())


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_softmax_against_a_loop(backend, shape):
    x, expected = torch.randn(6, *shape, dtype=torch.float64) * 500, torch.zeros(6, *shape, dtype=torch.float64)
    for s in INDEX.unique():
        expected[INDEX == s] = x[INDEX == s].softmax(0)
    torch.testing.assert_close(segment_softmax(x, INDEX, 5), expected)


@pytest.mark.parametrize("op", OPS)
def test_gradients(backend, op):
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: op(x, INDEX, 6), x)


@pytest.mark.parametrize("op", REDUCTIONS)
def test_no_points(backend, op):
    assert torch.equal(op(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 2), torch.zeros(2, 3))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keeps_the_dtype(backend, op, dtype):
    out = op(torch.ones(6, 2, dtype=dtype), INDEX, 5)
    assert out.dtype == dtype and out[4].tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_and_counted_in_float32(backend, dtype):
    """1,000 points of 100 add up to more than float16 holds, and 70,000 points are more than it counts."""
    index = torch.cat([torch.zeros(1000), torch.ones(70_000)]).long()
    x = torch.cat([torch.full((1000,), 100.0), torch.ones(70_000)]).to(dtype)
    assert segment_mean(x, index, 2).tolist() == [100, 1]
    assert segment_sum(x[:400], index[:400], 2).tolist() == [torch.tensor(40_000.0, dtype=dtype), 0]
    logits = torch.randn(71_000).to(dtype)
    torch.testing.assert_close(
        segment_softmax(logits, index, 2), segment_softmax(logits.float(), index, 2).to(dtype), rtol=0, atol=0
    )


@pytest.mark.parametrize("op", [segment_sum, segment_mean])
def test_nan_stays_in_its_segment(backend, op):
    x = torch.ones(6, 2)
    x[4] = float("nan")
    out = op(x, INDEX, 5)
    assert out[4].isnan().all() and out[:4].isfinite().all()


def test_equal_maxima_share_the_gradient():
    x = torch.tensor([1.0, 2.0, 2.0, 0.0], requires_grad=True)
    segment_max(x, torch.tensor([0, 0, 0, 1]), 2).sum().backward()
    assert x.grad.tolist() == [0, 0.5, 0.5, 1]


@pytest.mark.parametrize("op", OPS)
def test_compiles_to_one_graph(backend, op):
    compiled = torch.compile(op, fullgraph=True, backend="eager")
    x = torch.randn(6, 2)
    torch.testing.assert_close(compiled(x, INDEX, 5), op(x, INDEX, 5))


def test_whole_numbers_under_any_backend(backend):
    """Plans count points, whatever computes features."""
    assert segment_sum(torch.tensor([1, 2, 3]), torch.tensor([0, 2, 0]), 3).tolist() == [4, 0, 2]
