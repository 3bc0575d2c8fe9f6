from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix.ops.clustering import cluster_hard_reference
from pointmix.ops.context import packed as module
from pointmix.ops.context.packed import context_cluster
from pointmix.ops.ragged import counts_to_ptr

RULES = [dict(denominator="weights"), dict(denominator="count"), dict(unweighted=True)]
SHAPES = {
    "ragged": dict(counts=[7, 1, 30, 2, 2]),
    "one of everything": dict(counts=[1], centers=1, channels=1, heads=1, dim=2),
    "many channels": dict(counts=[50, 20], centers=9, channels=33, heads=3, dim=17),
}


def case(counts, *, centers=4, channels=6, heads=2, dim=5, dtype=torch.float64):
    """Tensors with gradients, windows (ptr, members, which centers exist) and heads. Some centers have no points, and
    some that have do not exist."""
    points, width = sum(counts), heads * dim
    members = torch.rand(points, centers) < 0.4
    members[:, 0] = True
    exists = torch.stack([m.any(0) for m in members.split(counts)])
    exists[:, 1:] &= torch.rand(len(counts), centers - 1) < 0.8
    shapes = [(points, channels), (2 * width, channels), (2 * width,), (4, width), (4,)]
    tensors = [torch.randn(s, dtype=dtype) for s in shapes]
    tensors += [torch.tensor([1.7], dtype=dtype), torch.tensor([-0.3], dtype=dtype)]
    return [t.requires_grad_() for t in tensors], (counts_to_ptr(torch.tensor(counts)), members, exists), heads


def fast(tensors, windows, heads, **rules):
    x, *weights = tensors
    return context_cluster(x, *windows, *weights, heads=heads, **rules)


def literal(tensors, windows, heads, **rules):
    """Window by window: means, linear maps of points and centers, the clustering's reference form, the projection."""
    (x, wqv, bqv, wp, bp, alpha, beta), (ptr, members, exists), outs = tensors, windows, []
    for s, (begin, end) in enumerate(zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True)):
        share = members[begin:end].to(x.dtype)
        pooled = share.t() @ x[begin:end] / share.sum(0).clamp(min=1)[:, None]
        maps = (F.linear(t[None], wqv, bqv).unflatten(-1, (2, heads, -1)).unbind(2) for t in (x[begin:end], pooled))
        (q, v), (c, cv) = maps
        o = cluster_hard_reference(q, v, c, cv, alpha, beta, center_valid=exists[s, None], **rules)
        outs.append(F.linear(o[0].flatten(1), wp, bp))
    return torch.cat(outs)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch):
    """All work is shared, however small."""
    before = torch.get_num_threads()
    monkeypatch.setattr(module, "MIN_NUMBERS", 0)
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def gradients(op, tensors, windows, heads, **rules):
    """The outcome and all gradients."""
    out = op(tensors, windows, heads, **rules)
    probe = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
    return [out, *torch.autograd.grad(out, tensors, probe)]


@pytest.mark.parametrize("alpha", [1.7, -0.8])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_clustering_between_its_linear_maps(shape, rule, alpha, threads):
    tensors, windows, heads = case(**SHAPES[shape])
    tensors[-2].data.fill_(alpha)
    found, expected = (gradients(op, tensors, windows, heads, **rule) for op in (fast, literal))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_of_equal_centers_the_first():
    tensors, (ptr, members, exists), heads = case([12], centers=3)
    members[:, 1:] = members[:, :1]  # all alike
    windows = ptr, members, torch.ones_like(exists)
    found, expected = (gradients(op, tensors, windows, heads) for op in (fast, literal))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
