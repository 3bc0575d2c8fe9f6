"""Linear maps of the features of several points against their definition."""

from __future__ import annotations

import pytest
import torch

from pointmix.ops import gather_linear as module
from pointmix.ops.gather_linear import gather_linear, gather_linear_reference

F64 = dict(dtype=torch.float64)


@pytest.mark.parametrize("chunk", [1, 50, 10**6])
def test_rows_in_chunks_are_the_reference(monkeypatch, chunk):
    monkeypatch.setattr(module, "CPU_CHUNK", chunk)
    feat, weight = torch.randn(10, 3, **F64), torch.randn(5, 12, **F64)
    index, bias = torch.randint(11, (17, 4)), torch.randn(5, **F64)  # 10 stands for zeros
    inputs = [x.requires_grad_() for x in (feat, weight, bias)]
    results = []
    for op in (gather_linear, gather_linear_reference):
        y = op(feat, index, weight, bias)
        results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    expected = sum(
        torch.where(index[:, k, None] < 10, feat[index[:, k].clamp(max=9)], 0) @ weight[:, 3 * k : 3 * k + 3].t()
        for k in range(4)
    )
    torch.testing.assert_close(gather_linear(feat, index, weight, None), expected)


def test_gathered_rows_are_not_kept_for_the_backward_pass():
    feat, weight = torch.randn(100, 8, requires_grad=True), torch.randn(8, 72)
    index, kept = torch.randint(101, (100, 9)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        gather_linear(feat, index, weight, None)
    assert max(kept) < 100 * 9 * 8


def test_no_points():
    index = torch.empty(0, 9, dtype=torch.int64)
    assert gather_linear(torch.empty(0, 3), index, torch.randn(4, 27), torch.randn(4)).shape == (0, 4)


def test_several_features_by_vmap():
    feat, weight, index = torch.randn(2, 10, 3), torch.randn(5, 12), torch.randint(11, (17, 4))
    found = torch.vmap(lambda x: gather_linear(x, index, weight, None))(feat)
    torch.testing.assert_close(found, torch.stack([gather_linear(x, index, weight, None) for x in feat]))
