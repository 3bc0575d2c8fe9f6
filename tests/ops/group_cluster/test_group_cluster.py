from __future__ import annotations

import pytest
import torch

from pointmix.ops.group_cluster import cluster_group, cluster_group_reference, numba

F64 = dict(dtype=torch.float64)
SHAPES = [(3, 6), (3,), (3, 6), (3,), (6, 3), (6,)]


def inputs(k: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    tensors = [torch.randn(4, k, 6), *(torch.randn(s) for s in SHAPES), torch.tensor([2.0]), torch.tensor([-0.3])]
    return [t.to(dtype).requires_grad_() for t in tensors]


@pytest.mark.parametrize("k", [1, 2, 24])
def test_values_at_the_center_change_nothing(k):
    x = inputs(k)
    outs = [f(*x) for f in (cluster_group_reference, cluster_group)]
    torch.testing.assert_close(outs[1], outs[0])
    probe = torch.randn_like(outs[0])
    gradients = [torch.autograd.grad((out * probe).sum(), x) for out in outs]
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_equal_runs_are_equal(threads, monkeypatch):
    monkeypatch.setattr(numba, "MIN_NUMBERS", 0)
    x = inputs(24, torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    runs = [torch.autograd.grad(cluster_group(*x).square().sum(), x) for _ in range(2)]
    torch.set_num_threads(before)
    assert all(map(torch.equal, *runs))


def test_the_equations_by_hand():
    """One channel, two neighbors, identity maps: q = v = x."""
    x = torch.tensor([[[1.0], [3.0]]], **F64)
    one, zero, two = (torch.full((1,), v, **F64) for v in (1.0, 0.0, 2.0))
    eye = one[:, None]
    s = torch.sigmoid(two + 1)  # the cosine with the mean, 2, is one for both
    g = (2 + s * 4) / (1 + 2 * s)
    for cluster in (cluster_group_reference, cluster_group):
        torch.testing.assert_close(cluster(x, eye, zero, eye, zero, eye, one, two, one), x + s * g + 1)


def test_a_projection_that_does_not_fit():
    x = inputs(5)
    for wp, bp in ((x[5][:-1], x[6]), (x[5], x[6][:-1])):
        with pytest.raises(RuntimeError):
            cluster_group(*x[:5], wp, bp, *x[7:])


def test_order_of_neighbors_does_not_matter():
    x, *weights = inputs(7)
    order = torch.randperm(7)
    torch.testing.assert_close(cluster_group(x[:, order], *weights), cluster_group(x, *weights)[:, order])


def test_overwrites_only_when_told():
    x, *weights = (t.detach() for t in inputs(5))
    before = x.clone()
    out = cluster_group(x, *weights)
    assert torch.equal(x, before)
    assert torch.equal(cluster_group(x, *weights, overwrite=True), out) and torch.equal(x, out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_where_queries_vanish(dtype):
    x, *weights = inputs(5, dtype)
    with torch.no_grad():
        weights[0].zero_(), weights[1].zero_()
    out = cluster_group(x, *weights)
    gradients = torch.autograd.grad(out.float().sum(), [x, *weights])
    assert out.isfinite().all() and all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("frozen", [False, True])
def test_bfloat16_under_autocast_is_compiled(frozen):
    """Gradients of the weights are as exact as the products of bfloat16 allow."""
    x, *weights = inputs(24, torch.float32)
    x = x.detach().bfloat16().requires_grad_()
    trained = [x, *([] if frozen else weights)]
    weights = [t.detach().requires_grad_(not frozen) for t in weights] if frozen else weights
    with torch.autocast("cpu", torch.bfloat16):
        y = cluster_group(x, *weights)
        assert y.dtype == torch.bfloat16 and frozen != ("Cluster" in type(y.grad_fn).__name__)
    exact = [t.detach().double().requires_grad_(t.requires_grad) for t in (x, *weights)]
    expected = cluster_group_reference(*exact)
    torch.testing.assert_close(y.double(), expected, rtol=2e-2, atol=2e-2)
    probe = torch.randn(y.shape).bfloat16()
    found = torch.autograd.grad(y, trained, probe)
    for a, b in zip(found, torch.autograd.grad(expected, exact[: len(trained)], probe.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=5e-2, atol=5e-2 * b.abs().max().item())


@pytest.mark.parametrize("onednn", [True, False])
def test_the_backward_pass_within_autocast(onednn):
    """Autocast would form products in bfloat16, which the kernel would take for float32."""
    x = inputs(24, torch.float32)
    with torch.backends.mkldnn.flags(enabled=onednn):
        out = cluster_group(*x)
        expected = torch.autograd.grad(out.square().sum(), x, retain_graph=True)
        with torch.autocast("cpu", torch.bfloat16):
            found = torch.autograd.grad(out.square().sum(), x)
    assert all(map(torch.equal, found, expected))
