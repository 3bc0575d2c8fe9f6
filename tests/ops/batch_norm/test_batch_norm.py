from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from pointmix.ops import use_backend
from pointmix.ops.batch_norm import batch_norm_relu, batch_norm_relu_reference, numba

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch):
    """Small tasks, and all work is shared."""
    before = torch.get_num_threads()
    monkeypatch.setattr(numba, "MIN_NUMBERS", 0)
    monkeypatch.setattr(numba, "TASK", 19 * 10)  # ten rows
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def arguments(rows: int, dtype: torch.dtype = torch.float32, *, plus: bool = True) -> tuple[list[torch.Tensor], dict]:
    """What has gradients (x, weight, bias, plus), and the running statistics."""
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    x, more = (torch.randn(rows, 19).to(dtype) for _ in range(2))
    given = [(3 * x + 5).requires_grad_(), *(torch.randn(19, dtype=wide).requires_grad_() for _ in range(2))]
    running = {"running_mean": torch.randn(19, dtype=wide), "running_var": torch.rand(19, dtype=wide)}
    return [*given, more.requires_grad_()] if plus else given, running


def run(op, given: list[torch.Tensor], running: dict) -> torch.Tensor:
    x, weight, bias, *plus = given
    return op(x, weight=weight, bias=bias, **running, momentum=0.1, eps=1e-5, plus=plus[0] if plus else None)


@pytest.mark.parametrize("plus", [True, False])
@pytest.mark.parametrize("rows", [2, 10, 95])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_values_statistics_and_gradients(dtype, rows, plus, threads, monkeypatch):
    given, running = arguments(rows, dtype, plus=plus)
    exact = [t.detach().double().requires_grad_() for t in given]
    other = {k: t.double().clone() for k, t in running.items()}
    expected = run(batch_norm_relu_reference, exact, other)
    monkeypatch.setattr(torch.nn.functional, "batch_norm", None)  # not used
    found, close = run(batch_norm_relu, given, running), dict(rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, **close)
    for name, t in running.items():
        torch.testing.assert_close(t.double(), other[name], **close)
    if rows == 2 or dtype == torch.bfloat16:  # the gradient of two rows is their rounding
        exact = exact[1:]
    probe = torch.randn(rows, 19).to(dtype)
    grads = torch.autograd.grad(expected, exact, probe.double()), torch.autograd.grad(found, given, probe)
    for a, b in zip(grads[0][::-1], grads[1][::-1], strict=False):
        torch.testing.assert_close(b.double(), a, rtol=30 * TOLERANCE[dtype], atol=30 * TOLERANCE[dtype])


def test_gradcheck():
    given, running = arguments(5, torch.float64)
    assert torch.autograd.gradcheck(lambda *given: run(batch_norm_relu, list(given), running), given, fast_mode=True)


def test_means_far_from_zero(threads):
    """The variance is not a difference of large numbers."""
    (x, *rest), running = arguments(500)
    given = [(x * 1e-2 + 1000).detach(), *(t.detach() for t in rest)]
    expected = run(batch_norm_relu_reference, [t.double() for t in given], {k: t.double() for k, t in running.items()})
    torch.testing.assert_close(run(batch_norm_relu, given, running).double(), expected, rtol=1e-2, atol=1e-2)


def test_equal_runs_are_equal_in_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(numba, "MIN_NUMBERS", 0)
    monkeypatch.setattr(numba, "TASK", 19 * 10)
    given, running = arguments(300)
    before, runs = torch.get_num_threads(), []
    for number in (1, 3, 3):
        torch.set_num_threads(number)
        y = run(batch_norm_relu, given, {k: t.clone() for k, t in running.items()})
        runs.append([y, *torch.autograd.grad(y.square().sum(), given)])
    torch.set_num_threads(before)
    assert all(map(torch.equal, runs[0], runs[1])) and all(map(torch.equal, runs[1], runs[2]))


def test_nan_stays():
    given, running = arguments(6)
    with torch.no_grad():
        given[0][2, 1] = torch.nan
        given[3][4, 7] = torch.nan
    bad = run(batch_norm_relu, given, running).isnan()
    assert bad[:, 1].all() and bad[4, 7] and bad.sum() == 7


def test_only_the_gradients_that_are_wanted():
    for wanted in range(4):
        given, running = arguments(9)
        given = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(given)]
        ys = [run(op, given, {k: t.clone() for k, t in running.items()}) for op in OPS]
        grads = [torch.autograd.grad(y.square().sum(), given[wanted])[0] for y in ys]
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)


OPS = batch_norm_relu, batch_norm_relu_reference


@pytest.mark.parametrize("which, change", [(3, lambda t: t.double()), (0, lambda t: t.t().contiguous().t())])
def test_other_operands(which, change):
    """What the kernels do not take, and rows that do not lie one after the other."""
    given, running = arguments(9)
    given = [t.detach() for t in given]
    given[which] = change(given[which])
    found, expected = (run(op, given, {k: t.clone() for k, t in running.items()}) for op in OPS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_by_torch_on_request_and_for_forward_mode(monkeypatch):
    given, running = arguments(9, torch.float64)
    monkeypatch.setattr(numba, "_run", None)
    with use_backend("torch"):
        run(batch_norm_relu, given, running)
    with forward_ad.dual_level():
        given[0] = forward_ad.make_dual(given[0].detach(), torch.randn(9, 19, dtype=torch.float64))
        assert forward_ad.unpack_dual(run(batch_norm_relu, given, running)).tangent is not None


def test_one_row_is_refused():
    given, running = arguments(1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        run(batch_norm_relu, given, running)
