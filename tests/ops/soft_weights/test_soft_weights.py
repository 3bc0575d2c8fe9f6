from __future__ import annotations

import pytest
import torch

from pointmix.ops.soft_weights import numba as module
from pointmix.ops.soft_weights import soft_weights, soft_weights_reference

CASES = {
    "plain": {},
    "bias": dict(bias=6),
    "a bias that repeats": dict(bias=2),
    "one of everything": dict(shape=(1, 1, 1, 1), bias=1),
    "more points than a piece": dict(shape=(2, 3, 2, 700), bias=1),
    "more heads than a piece": dict(shape=(2, 3, 5, 100), holes=True, bias=1),
    "empty slots": dict(holes=True, bias=3),
    "lost centers": dict(gone=True, bias=6),
    "all at once": dict(holes=True, gone=True, bias=1),
}


def case(*, shape=(6, 5, 2, 19), bias=0, holes=False, gone=False, dtype=torch.float64):
    """Arguments of the op. Some similarities are beyond the bound."""
    rows, centers, heads, points = shape
    near, size = torch.randn(shape, dtype=dtype), torch.rand(rows, heads, points, dtype=dtype) + 0.5
    bound = torch.tensor([1.2], dtype=dtype)
    table = torch.randn(bias, centers, heads, points, dtype=dtype) if bias else None
    valid = torch.rand(rows, points) < 0.6 if holes else None
    exists = torch.rand(rows, centers) < 0.5 if gone else None
    if exists is not None:
        exists[:, 2] = True
    return near, size, bound, table, valid, exists


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch):
    """All work is shared, however small."""
    before = torch.get_num_threads()
    monkeypatch.setattr(module, "MIN_NUMBERS", 0)
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def results(op, given, probes):
    """Weights, sums and all gradients."""
    trained = [t.detach().requires_grad_() for t in given[:4] if t is not None]
    inputs = [*trained, *[None] * (4 - len(trained)), *given[4:]]
    a, total = op(*inputs[:4], valid=inputs[4], exists=inputs[5]) if op is soft_weights else op(*inputs)
    loss = (a * probes[0].to(a.dtype)).sum() + (total * probes[1].to(total.dtype)).sum()
    return [a, total, *torch.autograd.grad(loss, trained)]


@pytest.mark.parametrize("name", CASES)
def test_compiled_form_has_the_values_and_gradients_of_the_reference_form(name, threads):
    given = case(**CASES[name])
    probes = torch.randn_like(given[0]), torch.randn(given[0].shape[:3], dtype=torch.float64)
    single = [t.float() if t is not None and t.is_floating_point() else t for t in given]
    expected = results(soft_weights_reference, given, probes)
    for found, exact in zip(results(soft_weights, single, probes), expected, strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=3e-6, atol=3e-6)
    with torch.no_grad():
        a, total = soft_weights(*single[:4], valid=single[4], exists=single[5])
    torch.testing.assert_close(a.double(), expected[0], rtol=3e-6, atol=3e-6)
    torch.testing.assert_close(total.double(), expected[1], rtol=3e-6, atol=3e-6)


def test_bfloat16_is_computed_in_float32(threads):
    given = case(bias=3, dtype=torch.float32)
    half = given[0].bfloat16(), *given[1:]
    wide = half[0].float(), *given[1:]
    probes = torch.randn_like(given[0]).bfloat16(), torch.randn(given[0].shape[:3])
    found, expected = results(soft_weights, half, probes), results(soft_weights, wide, probes)
    assert found[0].dtype == torch.bfloat16 and torch.equal(found[0], expected[0].bfloat16())
    assert all(t.dtype == torch.float32 for t in (found[1], *found[3:]))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=2e-2, atol=3e-2)


def test_reference_form_against_differences():
    near, size, bound, bias, *_ = (t if t is None else t.requires_grad_() for t in case(bias=2))
    run = lambda *given: soft_weights_reference(*given, None, None)  # noqa: E731
    assert torch.autograd.gradcheck(run, (near, size, bound, bias))


def test_weights_sum_to_one_and_far_centers_get_none():
    near, size, bound, bias, *_ = case(bias=1, dtype=torch.float32)
    bias[:, 1:3], bias[:, 3] = -1e4, -torch.inf
    a, total = soft_weights(near, size, bound, bias)
    torch.testing.assert_close(a.sum(1), torch.ones_like(size))
    assert (a[:, 1:4] == 0).all() and (total[:, 1:4] == 0).all()
    torch.testing.assert_close(total, a.sum(-1))


@pytest.mark.parametrize("where", ["near", "size", "bias"])
def test_a_nan_stays_with_its_point(where):
    near, size, bound, bias, *_ = case(bias=6, dtype=torch.float32)
    dict(near=near[:, 1], size=size, bias=bias[:, 1])[where][2, 1, 3] = torch.nan
    a, total = soft_weights(near.clone(), size, bound, bias)
    assert sorted(set(map(tuple, a.isnan().nonzero()[:, [0, 2, 3]].tolist()))) == [(2, 1, 3)]
    assert a[2, :, 1, 3].isnan().all() and total[2, :, 1].isnan().all() and total.isnan().sum() == 5


def test_equal_runs_are_equal(threads):
    given = case(shape=(8, 5, 3, 400), bias=2, dtype=torch.float32)
    probes = torch.randn_like(given[0]), torch.randn(given[0].shape[:3])
    first, second = (results(soft_weights, given, probes) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("shape", [(4, 5, 2, 19), (0, 5, 2, 19), (6, 5, 2, 18), (6, 4, 2, 19)])
def test_a_bias_that_does_not_fit(shape):
    near, size, bound, *_ = case(dtype=torch.float32)
    with pytest.raises((RuntimeError, ValueError)):
        soft_weights(near, size, bound, torch.zeros(shape))


def test_a_bias_for_all_heads():
    given = case(bias=2, dtype=torch.float32)
    bias = given[3][:, :, :1, :1]
    expected = soft_weights_reference(*given[:3], bias, None, None)[0]
    found = soft_weights(*given[:3], bias)[0]
    torch.testing.assert_close(found, expected)


def test_rows_without_centers_or_lengths_are_not_numbers_and_the_others_are():
    near, size, bound, *_ = case(dtype=torch.float32)
    exists = torch.ones(6, 5, dtype=torch.bool)
    exists[1], size[3, 1, 4] = False, 0
    near[3, 2, 1, 4] = 0
    found = soft_weights(near.clone(), size, bound, exists=exists)[0]
    expected = soft_weights_reference(near, size, bound, None, None, exists)[0]
    assert found[1].isnan().all() and found[3, :, 1, 4].isnan().all() and found.isnan().sum() == 5 * 2 * 19 + 5
    torch.testing.assert_close(found, expected, equal_nan=True)
