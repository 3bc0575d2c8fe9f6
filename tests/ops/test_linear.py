from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pointmix.ops import linear as ops
from pointmix.ops.linear import linear, linear_trained, rows_product


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


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("dtype, tol", [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_weights_in_any_order_in_memory(dtype, tol, plus):
    """oneDNN takes those by rows or by columns and has a slow loop for others, so it is given a copy."""
    x, b, sums = (torch.randn(shape).to(dtype) for shape in ((33, 12), (5,), (33, 5)))
    every = torch.randn(10, 24).to(dtype)
    for w in (every[:5, :12].contiguous(), every[:5, :12].t().contiguous().t(), every[:5, 3:15], every[::2, ::2]):
        got = linear(x, w, b, plus=sums if plus else None)
        expected = F.linear(x.double(), w.double(), b.double()) + (sums.double() if plus else 0)
        torch.testing.assert_close(got.double(), expected, rtol=tol, atol=tol)


@pytest.mark.skipif(not ops._one_pass("cpu", torch.float32), reason="this build of torch has no oneDNN")
def test_weights_that_are_strided_both_ways_are_copied():
    strides = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            if "_linear_pointwise" in str(op):
                strides.append(next(t.stride() for t in args[1:] if t.shape == (5, 12)))
            return op(*args, **(kwargs or {}))

    x, w = torch.randn(9, 12), torch.randn(10, 24)[::2, ::2]
    with Calls():
        linear(x, w)
        linear(x, w, plus=torch.randn(9, 5))
    assert strides == [(12, 1)] * 2


@pytest.mark.parametrize("points", [0, 40, 1024])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype, tol", [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_gradients(dtype, tol, bias, points):
    given = [torch.randn(shape, dtype=dtype).requires_grad_() for shape in ((points, 12), (5, 12), (5,))]
    given, probe = given if bias else given[:2], torch.randn(points, 5, dtype=dtype)
    exact = [t.detach().double().requires_grad_() for t in given]
    found, expected = linear_trained(*given), F.linear(*exact)
    torch.testing.assert_close(found.double(), expected, rtol=tol, atol=tol)
    grads = torch.autograd.grad(found, given, probe), torch.autograd.grad(expected, exact, probe.double())
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tol, atol=tol)


def test_gradients_of_gradients():
    x, w, b = (torch.randn(shape).requires_grad_() for shape in ((1024, 12), (5, 12), (5,)))
    seconds = []
    for f in (linear_trained, F.linear):
        first = torch.autograd.grad(f(x, w, b).square().sum(), (x, w), create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().mean() for g in first), (x, w, b)))
    for a, b in zip(*seconds, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())


def test_only_the_gradients_that_are_wanted():
    for wanted in range(3):
        given = [torch.randn(shape) for shape in ((9, 12), (5, 12), (5,))]
        given[wanted].requires_grad_()
        grads = [torch.autograd.grad(f(*given).square().sum(), given[wanted])[0] for f in (linear_trained, F.linear)]
        torch.testing.assert_close(*grads)


def test_operations_and_autocast_as_in_torch():
    x, w = torch.randn(2048, 12).requires_grad_(), torch.randn(5, 12).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        linear_trained(x, w).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 2048 * 12 * 5
    with torch.autocast("cpu", torch.bfloat16):
        assert linear_trained(x, w).dtype == torch.bfloat16
    with forward_ad.dual_level():
        assert forward_ad.unpack_dual(linear_trained(forward_ad.make_dual(x, x.clone()), w)).tangent is not None


@pytest.mark.parametrize("rows", [0, 64, 1024, 1030, 1088])
def test_products_over_rows(rows):
    a, b = torch.randn(rows, 6), torch.randn(11, rows).t()
    found = rows_product(a, b)
    torch.testing.assert_close(found.double(), a.double().t() @ b.double(), rtol=1e-4, atol=1e-4)
    assert torch.equal(found, rows_product(a, b))


@pytest.mark.parametrize("op", [linear, linear_trained])
def test_compiles_into_one_graph(op):
    x, w, b = torch.randn(9, 12), torch.randn(5, 12), torch.randn(5)
    torch.testing.assert_close(torch.compile(op, backend="eager", fullgraph=True)(x, w, b), F.linear(x, w, b))
