"""Up-sampling of maps with channels last against `torch.nn.functional.interpolate`."""

from __future__ import annotations

import pytest
import torch

from pointmix.ops.upsample import upsample, upsample_reference

F64 = dict(dtype=torch.float64)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 1, 2), (1, 1, 9, 1), (3, 4, 1, 2)], ids=str)
def test_values_and_gradients_are_those_of_the_reference(shape, stride):
    x, results = torch.randn(shape, **F64, requires_grad=True), []
    for op in (upsample, upsample_reference):
        y = op(x, stride)
        results.append([y, *torch.autograd.grad(y.square().sum(), x)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_second_derivatives():
    x = torch.randn(1, 3, 2, 2, **F64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: upsample(x, 2).square(), x)


def test_a_part_of_a_map_without_a_copy():
    x = torch.randn(2, 8, 6, 4)[:, 2:5, :, ::2]
    torch.testing.assert_close(upsample(x, 2), upsample_reference(x, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    x = torch.randn(1, 4, 4, 3, dtype=dtype)
    expected = upsample_reference(x.float(), 4)
    torch.testing.assert_close(upsample(x, 4).float(), expected, rtol=0.02, atol=0.02)


def test_it_compiles():
    x = torch.randn(1, 3, 3, 2)
    compiled = torch.compile(lambda x: upsample(x, 2), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), upsample(x, 2))
