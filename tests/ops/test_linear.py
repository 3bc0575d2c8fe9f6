from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix.ops import linear as ops
from pointmix.ops.linear import linear


@pytest.mark.parametrize("dtype, tol", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("plus", [None, "same", "float32"])
@pytest.mark.parametrize("points", [0, 1, 33])
def test_one_pass_or_many_it_is_the_same_map(dtype, tol, gelu, plus, points):
    x, w, b = (torch.randn(shape).to(dtype) for shape in ((points, 12), (5, 12), (5,)))
    if plus:
        plus = torch.randn(points, 5).to(dtype if plus == "same" else torch.float32)
    got = linear(x, w, b, gelu=gelu, plus=plus)
    expected = F.linear(x.double(), w.double(), b.double())
    expected = F.gelu(expected) if gelu else expected
    expected = expected if plus is None else expected + plus
    torch.testing.assert_close(got.double(), expected, rtol=tol, atol=tol)
    assert got.dtype == (dtype if plus is None else torch.promote_types(dtype, plus.dtype))


@pytest.mark.parametrize("gelu", [False, True])
def test_what_is_added_is_broadcast_or_refused(gelu):
    x, w, b, plus = (torch.randn(shape) for shape in ((9, 12), (5, 12), (5,), (1, 5)))
    torch.testing.assert_close(linear(x, w, b, gelu=gelu, plus=plus), linear(x, w, b, gelu=gelu) + plus)
    for shape in ((9, 4), (8, 5), (18, 5)):
        with pytest.raises(RuntimeError, match="must match the size"):
            linear(x, w, b, gelu=gelu, plus=torch.randn(shape))


def test_nan_stays_in_its_row():
    x = torch.randn(6, 16)
    x[2, 3] = torch.nan
    y = linear(x, torch.randn(8, 16), torch.randn(8), gelu=True)
    assert y.isnan().any(1).tolist() == [False, False, True, False, False, False]


def test_without_the_op(monkeypatch):
    """Other builds of torch have no oneDNN, or not this op."""
    x, w, b = torch.randn(7, 12), torch.randn(5, 12), torch.randn(5)
    expected = linear(x, w, b, gelu=True)
    monkeypatch.setattr(ops, "_one_pass", lambda device, dtype: False)
    torch.testing.assert_close(linear(x, w, b, gelu=True), expected)


def test_rows_that_are_not_contiguous():
    x, w, b = torch.randn(7, 24)[:, ::2], torch.randn(12, 5).t(), torch.randn(5)
    torch.testing.assert_close(linear(x, w, b), F.linear(x, w, b))
