from __future__ import annotations

import inspect

import pytest
import torch

from pointmix.ops.clustering import assign_hard
from pointmix.ops.precision import HALF, at_least_float32, emulates_bfloat16, in_float32, sums_in_float32
from pointmix.ops.segments import segment_mean


def test_half_precision_is_widened():
    assert [at_least_float32(dtype) for dtype in (*HALF, torch.float32, torch.float64)] == [torch.float32] * 3 + [
        torch.float64
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_an_op_sees_float32_in_place_of_float16_and_gives_it_back(dtype):
    @in_float32
    def op(x, *, scale):
        assert x.dtype == scale.dtype == at_least_float32(dtype)
        return x * scale, x.long()

    values = torch.ones(3, dtype=dtype)
    for out in (op(values, scale=values), op(x=values, scale=values)):
        assert (out[0].dtype, out[1].dtype) == (dtype, torch.int64)


def test_autocast_to_float16_is_float16():
    seen = []
    op = in_float32(lambda x: seen.append((x @ x).dtype) or x)
    with torch.autocast("cpu", dtype=torch.float16):
        assert op(torch.eye(2)).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        op(torch.eye(2))
    assert seen == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALF)
def test_sums_are_float32_and_come_back(dtype):
    op = sums_in_float32(lambda x, size: x.sum() / size if x.dtype == torch.float32 else None)
    assert op(torch.full((1000,), 100, dtype=dtype), size=2000).item() == pytest.approx(50, rel=4e-3)


def test_arguments_may_be_named():
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float16)
    assert segment_mean(x=x, index=torch.tensor([0, 0, 1]), size=2).tolist() == [1.5, 4]
    assert list(inspect.signature(assign_hard).parameters)[0] != "args"  # help() still shows the op's own


@pytest.mark.parametrize(
    "known, emulated",
    [
        ({"architecture": "x86_64", "avx2": True}, True),
        ({"architecture": "x86_64", "avx512_bf16": True}, False),
        ({"architecture": "x86_64", "amx_bf16": True}, False),
        ({"architecture": "arm64"}, False),
    ],
)
def test_bfloat16_is_emulated_without_its_instructions(known, emulated, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert emulates_bfloat16() == emulated


def test_a_torch_that_does_not_say_is_trusted(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not emulates_bfloat16()
