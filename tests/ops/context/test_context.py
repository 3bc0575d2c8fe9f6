from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from pointmix.ops.clustering import cluster_hard_reference
from pointmix.ops.context import context_cluster
from pointmix.ops.similarity import length


def case(*, windows=3, points=7, centers=4, channels=6, heads=2, dim=5, rows=None, holes=False, gone=False):
    """Tensors and options of the op, as in test_clustering."""
    number = windows if rows is None else len(rows)
    width, out = heads * dim, 3
    shapes = [(number, points, channels), (windows, centers, channels)]
    shapes += [(2 * width, channels), (2 * width,), (out, width), (out,)]
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    tensors += [torch.tensor([1.7], dtype=torch.float64), torch.tensor([-0.3], dtype=torch.float64)]
    options = {}
    if rows is not None:
        options["row_window"] = torch.tensor(rows)
    if holes:
        options["valid"] = torch.rand(number, points) < 0.6
        options["valid"][:, 0] = True
    if gone:
        options["center_valid"] = torch.rand(windows, centers) < 0.5
        options["center_valid"][:, -1] = True
    return [t.requires_grad_() for t in tensors], heads, options


def fast(x, pooled, wqv, bqv, wp, bp, alpha, beta, *, heads, **options):
    q = F.linear(x, wqv, bqv).chunk(2, dim=-1)[0]
    size = length(q.unflatten(-1, (heads, -1)))
    return context_cluster(x, pooled, size, wqv, bqv, wp, bp, alpha, beta, heads=heads, **options)


def literal(x, pooled, wqv, bqv, wp, bp, alpha, beta, *, heads, **options):
    """Linear maps of points and centers, the reference form of the clustering, the projection."""
    (q, v), (c, cv) = (F.linear(t, wqv, bqv).unflatten(-1, (2, heads, -1)).unbind(2) for t in (x, pooled))
    return F.linear(cluster_hard_reference(q, v, c, cv, alpha, beta, **options).flatten(2), wp, bp)


RULES = [dict(denominator="weights"), dict(denominator="count"), dict(unweighted=True)]
CASES = {
    "even": {},
    "one of everything": dict(windows=1, points=1, centers=1, channels=1, heads=1, dim=2),
    "more centers than points": dict(points=2, centers=9),
    "ragged rows": dict(rows=[0, 0, 1, 2, 2, 2]),
    "rows in any order": dict(rows=[2, 0, 1, 0]),
    "empty slots": dict(holes=True),
    "lost centers": dict(gone=True),
    "all at once": dict(rows=[0, 0, 1, 2, 2, 2], holes=True, gone=True),
}


@pytest.mark.parametrize("alpha", [1.7, -0.8, 0.0])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_is_the_clustering_between_its_linear_maps(name, rule, alpha):
    tensors, heads, options = case(**CASES[name])
    tensors[-2].data.fill_(alpha)
    outs = [op(*tensors, heads=heads, **rule, **options) for op in (fast, literal)]
    if "valid" in options:
        outs = [out[options["valid"]] for out in outs]
    torch.testing.assert_close(*outs)
    probe = torch.randn_like(outs[0])
    grads = [torch.autograd.grad(out, tensors, probe) for out in outs]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_against_differences():
    tensors, heads, options = case(points=3, centers=2, channels=3, dim=2, rows=[0, 1, 1, 2])
    for unweighted in (False, True):
        run = partial(fast, heads=heads, unweighted=unweighted, **options)
        assert torch.autograd.gradcheck(run, tensors)


def test_what_empty_slots_and_lost_centers_hold_does_not_matter():
    tensors, heads, options = case(**CASES["all at once"])
    x, pooled, *rest = (t.detach() for t in tensors)
    before = fast(x, pooled, *rest, heads=heads, **options)[options["valid"]]
    x = torch.where(options["valid"][..., None], x, 1e3)
    lost = ~options["center_valid"]
    moved = torch.where(lost[..., None], -1e3, pooled)
    torch.testing.assert_close(fast(x, moved, *rest, heads=heads, **options)[options["valid"]], before)


def test_a_point_that_is_its_own_center():
    """The cosine is one, and rounding does not push it further; its derivative by alpha is one too."""
    tensors, heads, _ = case(windows=50, points=1, centers=1)
    x, _, *weights = tensors
    alpha = weights[4]
    outs = [op(x, x, *weights, heads=heads).sum() for op in (fast, literal)]
    grads = [torch.autograd.grad(out, alpha)[0] for out in outs]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_close(dtype):
    tensors, heads, _ = case(windows=20)
    x, pooled, *rest = (t.detach() for t in tensors)
    pooled = pooled[:, :1] * torch.tensor([3.0, -3.0], dtype=torch.float64)[:, None]  # opposite
    tensors = [t.to(dtype).requires_grad_() for t in (x, pooled, *rest)]
    expected = literal(*(t.double() for t in tensors), heads=heads)
    got = fast(*tensors, heads=heads)
    close = (got.double() - expected).abs().amax(-1) < 0.1 * expected.abs().max()
    assert got.dtype == dtype and close.float().mean() > 0.9  # points between two centers may choose the other one
    got.float().square().mean().backward()
    assert all(t.grad.isfinite().all() and t.grad.any() for t in tensors)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_float16_is_computed_in_float32(rule, autocast):
    """Centers that are not there, and sums over a cluster of more than float16 holds."""
    tensors, heads, options = case(windows=2, points=3000, gone=True)
    x, *rest = (t.detach().half() for t in tensors)
    expected = fast(100 * x.float(), *(t.float() for t in rest), heads=heads, **options, **rule)
    if autocast:
        (x, rest), kind = (x.float(), [t.float() for t in rest]), torch.float32
        size = length(F.linear(100 * x, *rest[1:3]).chunk(2, dim=-1)[0].unflatten(-1, (heads, -1)))
        with torch.autocast("cpu", torch.float16):
            found = context_cluster(100 * x, rest[0], size, *rest[1:], heads=heads, **options, **rule)
    else:
        found, kind = fast(100 * x, *rest, heads=heads, **options, **rule), torch.float16
    assert found.dtype == kind
    close = (found.float() - expected).abs().amax(-1) < 2e-3 * expected.abs().max()
    assert close.float().mean() > 0.99


def test_zero_vectors():
    """A query without a length is like nothing: its weight is that of a cosine of zero."""
    tensors, heads, _ = case()
    x, pooled, wqv, bqv, *rest = (t.detach() for t in tensors)
    x, bqv = torch.zeros_like(x), torch.zeros_like(bqv)
    args = (x, pooled, wqv, bqv, *rest)
    torch.testing.assert_close(fast(*args, heads=heads), literal(*args, heads=heads))
