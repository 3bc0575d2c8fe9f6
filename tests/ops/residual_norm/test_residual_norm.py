from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from pointmix.ops import use_backend
from pointmix.ops.dispatch import OPERATIONS
from pointmix.ops.residual_norm import recomputes, residual_norm, residual_norm_reference

SETS, POINTS, CHANNELS = 6, 7, 19


@pytest.fixture(params=[1, 4, SETS + 1])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def given(*, of_x=torch.float32, of_branch=torch.float32, wide=torch.float32) -> tuple[Tensor, ...]:
    x, branch = (torch.randn(SETS * POINTS, CHANNELS).to(dtype) for dtype in (of_x, of_branch))
    return tuple(t.requires_grad_() for t in (x, branch, *torch.rand(3, CHANNELS).to(wide).unbind()))


def run(op, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The results and all gradients."""
    results = op(*tensors, SETS, 1e-5)
    weights = (torch.linspace(-1, 2, t.numel(), dtype=t.dtype).sin().view_as(t) for t in results)
    return *results, *torch.autograd.grad([(t * w).sum() for t, w in zip(results, weights, strict=True)], tensors)


@pytest.mark.parametrize("of_x, of_branch", [("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")])
def test_results_and_gradients_are_those_of_the_reference(of_x, of_branch, threads):
    tensors = given(of_x=getattr(torch, of_x), of_branch=getattr(torch, of_branch))
    exact = run(residual_norm_reference, tuple(t.detach().double().requires_grad_() for t in tensors))
    found = run(residual_norm, tensors)
    assert [t.dtype for t in found[2:]] == [t.dtype for t in tensors]
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b.to(a.dtype), rtol=1e-2 if a.dtype == torch.bfloat16 else 1e-5, atol=2e-5)


def test_gradients_of_both_results():
    tensors = given(wide=torch.float64, of_x=torch.float64, of_branch=torch.float64)
    assert torch.autograd.gradcheck(partial(residual_norm, sets=SETS, eps=1e-5), tensors)
    with use_backend("torch"):
        of_torch = run(residual_norm, singles := given())
    for a, b in zip(run(residual_norm, singles), of_torch, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_gradients_that_are_not_contiguous(threads):
    tensors, turned = given(), [torch.randn(CHANNELS, SETS * POINTS).t() for _ in range(2)]
    found, expected = (
        torch.autograd.grad(op(*tensors, SETS, 1e-5), tensors, turned)
        for op in (residual_norm, residual_norm_reference)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_branch_that_is_not_contiguous(threads):
    x, branch, *weights = given()
    tensors = x, branch.detach().t().contiguous().t().requires_grad_(), *weights
    for a, b in zip(run(residual_norm, tensors), run(residual_norm_reference, tensors), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [(0,), (0, 1), (1, 2), (0, 2, 3, 4)])
def test_frozen_parts(frozen):
    tensors = [t.detach().requires_grad_(i not in frozen) for i, t in enumerate(given())]
    wanted = [t for t in tensors if t.requires_grad]
    assert recomputes(*tensors)
    found, expected = (
        torch.autograd.grad(op(*tensors, SETS, 1e-5)[1].square().sum(), wanted)
        for op in (residual_norm, residual_norm_reference)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_several_gradients_at_once():
    tensors, outer = given(), torch.randn(3, SETS * POINTS, CHANNELS)
    for result in residual_norm(*tensors, SETS, 1e-5):
        gradients = partial(torch.autograd.grad, result, tensors[:3], retain_graph=True)
        each = zip(*(gradients(t) for t in outer), strict=True)
        for a, b in zip(gradients(outer, is_grads_batched=True), each, strict=True):
            torch.testing.assert_close(a, torch.stack(b), rtol=1e-4, atol=1e-4)


def test_second_derivatives_are_refused():
    x, *others = given()
    _, y = residual_norm(x, *others, SETS, 1e-5)
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_the_backend_of_the_forward_pass_computes_the_gradients(monkeypatch):
    monkeypatch.setitem(OPERATIONS["residual_norm_backward"].functions, "numba", lambda *given: pytest.fail("compiled"))
    tensors = given()
    with use_backend("torch"):
        _, y = residual_norm(*tensors, SETS, 1e-5)
    assert torch.autograd.grad(y.sum(), tensors[0])[0].isfinite().all()


def test_keeps_the_branch_but_no_sum():
    kept: list[Tensor] = []
    tensors = given()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        residual_norm(*tensors, SETS, 1e-5)
    assert [id(t) for t in kept if len(t) == SETS * POINTS] == [id(t) for t in tensors[:2]]


def test_equal_runs_are_equal():
    tensors = given()
    assert all(torch.equal(a, b) for a, b in zip(run(residual_norm, tensors), run(residual_norm, tensors), strict=True))


def test_nan_stays():
    x, *others = given()
    with torch.no_grad():
        x[3, 2] = torch.nan
    *_, dx, _, dgamma, _, _ = run(residual_norm, (x, *others))
    assert dx[:POINTS].isnan().all() and not dx[POINTS:].isnan().any() and dgamma.isnan().all()


def test_only_where_gradients_are_wanted_of_plain_tensors():
    tensors = given()
    assert recomputes(*tensors) and recomputes(*given(of_x=torch.bfloat16))
    assert not recomputes(*(t.detach() for t in tensors))
    assert not recomputes(*given(of_x=torch.float64)) and not recomputes(*given(wide=torch.bfloat16))
    x, branch, gamma, *norm = tensors
    for broadcast in ((x, branch[:, :1], gamma, *norm), (x, branch[:1], gamma, *norm), (x, branch, gamma[:1], *norm)):
        assert not recomputes(*broadcast)
    with torch.no_grad():
        assert not recomputes(*tensors)
