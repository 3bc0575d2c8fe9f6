"""Aggregate and dispatch against the two products."""

from __future__ import annotations

import pytest
import torch

from pointmix.ops import use_backend
from pointmix.ops.clustering.sums import aggregate, dispatch


def inputs(**kwargs) -> list[torch.Tensor]:
    """Weights, values, what is dispatched, and what is added."""
    return [torch.randn(2, *s, **kwargs) for s in ((3, 5), (5, 4), (3, 6), (1, 6))]


def both(a: torch.Tensor, v: torch.Tensor, g: torch.Tensor, plus: torch.Tensor | None):
    gathered, a = aggregate(a, v)
    return gathered, dispatch(a, g * gathered.mean(2, keepdim=True), plus)


def products(a: torch.Tensor, v: torch.Tensor, g: torch.Tensor, plus: torch.Tensor | None):
    gathered = a @ v
    out = a.mT @ (g * gathered.mean(2, keepdim=True))
    return gathered, out if plus is None else out + plus


@pytest.mark.parametrize("more", [True, False])
def test_values_and_gradients_are_those_of_the_products(more):
    given = [t.requires_grad_() for t in inputs(dtype=torch.float64)]
    args = given if more else [*given[:3], None]
    probes = [torch.randn_like(t) for t in products(*args)]
    results = []
    for form in (products, both):
        gradients = torch.autograd.grad(form(*args), given[: 3 + more], probes)
        results.append([*form(*args), *gradients])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(both(*args), products(*args))


def test_gradients_that_are_not_asked_for_and_repeated_backward_passes():
    a, v, g, plus = inputs(dtype=torch.float64)
    out = both(a.requires_grad_(), v, g, plus)[1]
    expected = torch.autograd.grad(products(a, v, g, plus)[1].sum(), a)[0]
    for _ in range(2):  # nothing that is kept is written over
        torch.testing.assert_close(torch.autograd.grad(out.sum(), a, retain_graph=True)[0], expected)


def test_autocast():
    a, v, g, plus = (t.requires_grad_() for t in inputs())
    with torch.autocast("cpu", torch.bfloat16):
        gathered, out = both(a, v, g, plus)
    assert gathered.dtype == out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in (a, v, g, plus))


def test_forward_mode():
    given = inputs(dtype=torch.float64)
    tangents = [torch.randn_like(t) for t in given]
    found, expected = (torch.func.jvp(form, tuple(given), tuple(tangents))[1] for form in (both, products))
    torch.testing.assert_close(found, expected)


def test_second_derivatives_on_request():
    given = [t.requires_grad_() for t in inputs(dtype=torch.float64)]
    with use_backend("torch"):
        assert torch.autograd.gradgradcheck(both, given)
