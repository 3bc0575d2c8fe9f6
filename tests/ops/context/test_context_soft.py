"""Soft clustering from features to features, with values and projection worked out at the centers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix.ops.clustering import cluster_soft
from pointmix.ops.context import context_soft, keys
from pointmix.ops.similarity import length

F64 = dict(dtype=torch.float64)


def case(*, windows=3, points=7, centers=4, channels=6, heads=2, dim=5, rows=None, holes=False, gone=False, bias=1):
    """Tensors and options of the op; `bias` is its number of rows."""
    number = windows if rows is None else len(rows)
    width, out = heads * dim, 3
    shapes = [(number, points, channels), (windows, centers, channels)]
    shapes += [(2 * width, channels), (2 * width,), (out, width), (windows, out)]
    tensors = [torch.randn(shape, **F64) for shape in shapes] + [torch.tensor([1.7], **F64)]
    tensors += [torch.randn(bias, centers, heads, points, **F64)]
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


def fast(x, pooled, wqv, bqv, wp, base, alpha, bias, *, heads, **options):
    q = F.linear(x, wqv, bqv).chunk(2, dim=-1)[0]
    size = length(q.unflatten(-1, (heads, -1)))
    return context_soft(x, pooled, size, wqv, bqv, wp, base, alpha, bias, heads=heads, **options)


def literal(x, pooled, wqv, bqv, wp, base, alpha, bias, *, heads, **options):
    """Linear maps of points and centers, the clustering, the projection, what is added to each window."""
    (q, v), (c, cv) = (F.linear(t, wqv, bqv).unflatten(-1, (2, heads, -1)).unbind(2) for t in (x, pooled))
    out = F.linear(cluster_soft(q, v, c, cv, alpha, bias, **options).flatten(2), wp)
    return out + base[options.get("row_window", slice(None))][:, None]


RAGGED = [0, 0, 1, 2, 2, 2]
CASES = {
    "even": {},
    "one of everything": dict(windows=1, points=1, centers=1, channels=1, heads=1, dim=2),
    "more centers than points": dict(points=2, centers=9),
    "ragged rows": dict(rows=RAGGED, bias=6),
    "rows in any order": dict(rows=[2, 0, 1, 0]),
    "empty slots": dict(holes=True),
    "lost centers": dict(gone=True, bias=3),
    "all at once": dict(rows=RAGGED, holes=True, gone=True, bias=6),
}


@pytest.mark.parametrize("alpha", [1.7, -0.8, 0.0])
@pytest.mark.parametrize("name", CASES)
def test_is_the_clustering_between_its_linear_maps(name, alpha):
    tensors, heads, options = case(**CASES[name])
    tensors[-2].data.fill_(alpha)
    outs = [op(*tensors, heads=heads, **options) for op in (fast, literal)]
    if "valid" in options:
        outs = [out[options["valid"]] for out in outs]
    torch.testing.assert_close(*outs)
    probe = torch.randn_like(outs[0])
    gradients = [torch.autograd.grad(out, tensors, probe) for out in outs]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_without_a_bias():
    (*tensors, _), heads, options = case(**CASES["ragged rows"])
    outs = [op(*tensors, None, heads=heads, **options) for op in (fast, literal)]
    torch.testing.assert_close(*outs)


def test_gradients_against_differences():
    tensors, heads, options = case(points=3, centers=2, channels=3, dim=2, rows=[0, 1, 1, 2], bias=4)
    assert torch.autograd.gradcheck(lambda *t: fast(*t, heads=heads, **options), tensors, fast_mode=True)


def test_what_empty_slots_and_lost_centers_hold_does_not_matter():
    tensors, heads, options = case(**CASES["all at once"])
    x, pooled, *rest = (t.detach() for t in tensors)
    before = fast(x, pooled, *rest, heads=heads, **options)[options["valid"]]
    x = torch.where(options["valid"][..., None], x, 1e3)
    moved = torch.where(options["center_valid"][..., None], pooled, -1e3)
    torch.testing.assert_close(fast(x, moved, *rest, heads=heads, **options)[options["valid"]], before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_close(dtype):
    tensors, heads, _ = case(windows=20)
    tensors = [t.detach().to(dtype).requires_grad_() for t in tensors]
    expected = literal(*(t.double() for t in tensors), heads=heads)
    got = fast(*tensors, heads=heads)
    assert got.dtype == dtype
    assert (got.double() - expected).abs().max() < 8 * torch.finfo(dtype).eps * expected.abs().max()
    got.float().square().mean().backward()
    assert all(t.grad.isfinite().all() and t.grad.any() for t in tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_queries_without_length(dtype):
    """A query that its bias takes away exactly: what rounding leaves of its products is no similarity."""
    tensors, heads, _ = case(windows=50)
    x, pooled, wqv, bqv, wp, base, alpha, bias = (t.detach() for t in tensors)
    x, wqv = (3 * x[:1, :1]).round().expand_as(x), (3 * wqv).round()  # integers, so that it is exact
    bqv = torch.cat([-F.linear(x[0, 0], wqv[:10]), bqv[10:]])
    arguments = [t.to(dtype) for t in (x, pooled, wqv, bqv, wp, base, alpha * 1e-3, bias * 0)]
    expected = literal(*(t.double() for t in arguments), heads=heads)
    got = fast(*arguments, heads=heads).double()
    assert (got - expected).abs().max() < (0.01 + 8 * torch.finfo(dtype).eps) * expected.abs().max()


def test_keys_give_cosines_times_lengths():
    tensors, heads, _ = case()
    x, pooled, wqv, bqv, *_, alpha, _ = tensors
    wq, bq = wqv[:10].unflatten(0, (2, 5)), bqv[:10].unflatten(0, (2, 5))
    key, offset = keys(pooled, wq, bq, alpha)
    near = (key @ x.transpose(1, 2) + offset[..., None]).unflatten(1, (4, 2))  # (S, M, E, L)
    q, c = (torch.einsum("edc,snc->sned", wq, t) + bq for t in (x, pooled))
    expected = alpha * torch.einsum("smed,sned->smen", F.normalize(c, dim=-1), q)
    torch.testing.assert_close(near, expected)


def test_neither_values_nor_centers_by_points_by_channels_exist(sizes):
    shape = dict(windows=8, points=64, centers=16, channels=32, heads=4, dim=24)
    (x, pooled, *rest), heads, _ = case(**shape)
    with sizes() as seen:
        out = context_soft(x, pooled, torch.ones(8, 64, heads, **F64), *rest, heads=heads)
        torch.autograd.grad(out.sum(), [x, pooled, *rest])
    assert max(seen.elements) == 8 * 4 * 16 * 64  # weights of each point at each center in each head


def test_memory_is_linear_in_the_number_of_windows(sizes):
    totals, largest = [], []
    for windows in (4, 16, 64):
        (x, pooled, *rest), heads, _ = case(windows=windows, points=64, centers=16)
        size = torch.ones(windows, 64, heads, **F64)
        with sizes() as seen:
            torch.autograd.grad(context_soft(x, pooled, size, *rest, heads=heads).sum(), [x, pooled, *rest])
        totals.append(sum(seen.elements))
        largest.append(max(seen.elements))
    assert largest == [largest[0], 4 * largest[0], 16 * largest[0]]
    assert totals[1] <= 4 * totals[0] and totals[2] <= 16 * totals[0]
