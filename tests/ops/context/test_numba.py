from __future__ import annotations

import re
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba import cfunc
from torch.autograd import forward_ad
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.flop_counter import FlopCounterMode

from pointmix import PointSet
from pointmix.nn.mixers.context import ContextCluster
from pointmix.ops import use_backend
from pointmix.ops.clustering import cluster_hard_reference
from pointmix.ops.context import numba as module
from pointmix.ops.context import numba_kernels
from pointmix.ops.context.numba import context_cluster
from pointmix.ops.dispatch import OPERATIONS
from pointmix.ops.kernels import threads as thread_module
from pointmix.ops.ragged import counts_to_ptr

RULES = [dict(denominator="weights"), dict(denominator="count"), dict(unweighted=True)]
COUNTS = {"ragged": [7, 1, 30, 2, 2], "one point": [1], "one window": [50], "single points": [1] * 9}


def case(counts: list[int], *, centers=4, channels=6, heads=2, dim=5, dtype=torch.float64):
    """Features, windows (ptr, members, which centers exist) and weights; each point lies around a center."""
    points, width = sum(counts), heads * dim
    members = torch.rand(points, centers) < 0.4
    members[torch.arange(points), torch.randint(centers, (points,))] = True
    ptr = counts_to_ptr(torch.tensor(counts))
    exists = torch.stack([m.any(0) for m in members.split(counts)])
    weights = [torch.randn(s, dtype=dtype) for s in [(2 * width, channels), (2 * width,), (3, width), (3,)]]
    weights += [torch.tensor([1.7], dtype=dtype), torch.tensor([-0.3], dtype=dtype)]
    return torch.randn(points, channels, dtype=dtype), (ptr, members, exists), weights, heads


def literal(x, windows, weights, heads, **rules):
    """Window by window: means, linear maps of points and centers, the clustering's reference form, the projection."""
    (ptr, members, exists), (wqv, bqv, wp, bp, alpha, beta) = windows, weights
    outs = []
    for s, (begin, end) in enumerate(zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True)):
        share = members[begin:end].to(x.dtype)
        pooled = share.t() @ x[begin:end] / share.sum(0).clamp(min=1)[:, None]
        maps = (F.linear(t[None], wqv, bqv).unflatten(-1, (2, heads, -1)).unbind(2) for t in (x[begin:end], pooled))
        (q, v), (c, cv) = maps
        o = cluster_hard_reference(q, v, c, cv, alpha, beta, center_valid=exists[s, None], **rules)
        outs.append(F.linear(o[0].flatten(1), wp, bp))
    return torch.cat(outs)


@pytest.fixture(params=["one thread", "torch's threads", "threads of our own"])
def threads(request: pytest.FixtureRequest, monkeypatch):
    """All work is shared, however small."""
    before = torch.get_num_threads()
    monkeypatch.setattr(module, "MIN_MULTIPLICATIONS", 0)
    torch.set_num_threads(1 if request.param == "one thread" else 3)
    if request.param == "threads of our own":
        monkeypatch.setattr(thread_module, "_openmp", lambda: None)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", COUNTS)
def test_is_the_clustering_between_its_linear_maps(name, rule, threads):
    x, windows, weights, heads = case(COUNTS[name])
    found = context_cluster(x, *windows, *weights, heads=heads, **rule)
    torch.testing.assert_close(found, literal(x, windows, weights, heads, **rule), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("piece", [1, 8, 31, 10**6])
def test_queries_in_pieces(piece, monkeypatch):
    x, windows, weights, heads = case([3, 30, 1, 1, 8, 20])
    monkeypatch.setattr(module, "points_per_piece", lambda x, width: piece)
    expected = literal(x, windows, weights, heads)
    torch.testing.assert_close(context_cluster(x, *windows, *weights, heads=heads), expected, rtol=1e-11, atol=1e-11)
    pieces = list(module._pieces(windows[0].numpy(), piece))
    assert [first for first, _ in pieces[1:]] == [last for _, last in pieces[:-1]]
    assert pieces[0][0] == 0 and pieces[-1][1] == 6 and all(first < last for first, last in pieces)
    assert len(pieces) == 1 if piece == 10**6 else len(pieces) > 1


@pytest.mark.parametrize("shape", [dict(centers=1, heads=1, dim=1), dict(centers=9, heads=3, dim=17, channels=33)])
def test_any_shape(shape):
    x, windows, weights, heads = case([5, 40, 2], **shape)
    found = context_cluster(x, *windows, *weights, heads=heads)
    torch.testing.assert_close(found, literal(x, windows, weights, heads), rtol=1e-11, atol=1e-11)


def test_single_precision():
    x, windows, weights, heads = case([300, 20, 7], channels=48, dim=24)
    single = [t.float() for t in weights]
    found = context_cluster(x.float(), *windows, *single, heads=heads)
    expected = literal(x.float().double(), windows, [t.double() for t in single], heads)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16(autocast):
    x, windows, weights, heads = case([300, 20, 7], channels=48, dim=24)
    x, *weights = (t.bfloat16() for t in (x, *weights))
    expected = literal(x.double(), windows, [t.double() for t in weights], heads)
    if autocast:
        x, *weights = (t.float() for t in (x, *weights))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = context_cluster(x, *windows, *weights, heads=heads)
    assert found.dtype == torch.bfloat16
    near = (found - expected).abs().amax(1) < 0.02 * expected.abs().max()
    assert near.double().mean() > 0.9  # rounding decides between centers that are nearly equally near


def test_of_equal_centers_the_first():
    x, (ptr, members, exists), weights, heads = case([12], centers=3)
    members[:, 1:] = members[:, :1]  # all alike
    members[0] = True
    windows = ptr, members, torch.ones_like(exists)
    found = context_cluster(x, *windows, *weights, heads=heads)
    torch.testing.assert_close(found, literal(x, windows, weights, heads), rtol=1e-11, atol=1e-11)


def test_what_is_not_a_number_stays_in_its_window_and_is_not_lost():
    x, windows, weights, heads = case([4, 6, 5])
    clean = context_cluster(x, *windows, *weights, heads=heads)
    x[5] = torch.nan
    found = context_cluster(x, *windows, *weights, heads=heads)
    assert found[5].isnan().all()
    assert torch.equal(found[:4], clean[:4]) and torch.equal(found[10:], clean[10:])


def test_short_queries_have_a_weight():
    x, windows, weights, heads = case([9])
    weights[0], weights[1] = weights[0] * 1e-30, weights[1] * 0
    assert context_cluster(x, *windows, *weights, heads=heads).isfinite().all()


def test_tensors_need_not_be_contiguous():
    x, (ptr, members, exists), weights, heads = case([4, 6, 5])
    expected = context_cluster(x, ptr, members, exists, *weights, heads=heads)
    strided = [t.t().contiguous().t() if t.ndim == 2 else t.repeat_interleave(2)[::2] for t in weights]
    windows = ptr.repeat_interleave(2)[::2], members.t().contiguous().t(), exists.t().contiguous().t()
    found = context_cluster(x.t().contiguous().t(), *windows, *strided, heads=heads)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_views_that_are_negative_on_paper():
    x, windows, weights, heads = case([4, 6, 5])
    expected = context_cluster(x, *windows, *weights, heads=heads)
    negative = [torch._neg_view(-t) for t in weights]
    found = context_cluster(torch._neg_view(-x), *windows, *negative, heads=heads)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("which", [3, 4, 5])
def test_weights_of_another_shape(which):
    x, windows, weights, heads = case([4, 6])
    weights[which] = weights[which][:0]
    with pytest.raises(ValueError, match=r"^alpha, beta and bp must be \(1,\), \(1,\) and \(3,\), got "):
        context_cluster(x, *windows, *weights, heads=heads)


def test_windows_of_other_points():
    x, windows, weights, heads = case([4, 6])
    with pytest.raises(ValueError, match="^windows hold 10 points, 10 of them around centers, got 9$"):
        context_cluster(x[:9], *windows, *weights, heads=heads)


def test_several_threads_may_call():
    x, windows, weights, heads = case([40] * 50)
    expected, found = context_cluster(x, *windows, *weights, heads=heads), {}

    def call(i: int) -> None:
        found[i] = context_cluster(x, *windows, *weights, heads=heads)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4 and all(torch.equal(t, expected) for t in found.values())


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Points of each call of the kernel."""
    made = []
    counted = lambda x, *a, **k: made.append(len(x)) or context_cluster(x, *a, **k)  # noqa: E731
    monkeypatch.setitem(OPERATIONS["context_cluster"].functions, "numba", counted)
    return made


def mixer_and_plan(**kwargs):
    masks = [torch.rand(12, 10) < 0.4, torch.rand(5, 9) < 0.7, torch.zeros(4, 4, dtype=torch.bool)]
    masks[2][1, 2] = True
    points = PointSet.from_images([torch.randn(6, *m.shape, dtype=torch.float64) for m in masks], masks)
    mixer = ContextCluster(6, heads=2, head_dim=8, **kwargs).double()
    plan = points.layout.plan(points.pos, points.ptr, 2, 2)
    return mixer, plan, plan.to_window_order(points.feat.double())


@pytest.mark.parametrize("kwargs", [{}, dict(denominator="count"), dict(unweighted=True)], ids=str)
def test_mixers_take_it_where_nobody_asks_for_gradients(kwargs, calls):
    mixer, plan, x = mixer_and_plan(**kwargs)
    expected = mixer(x, plan)
    assert expected.requires_grad and not calls
    with torch.no_grad():
        torch.testing.assert_close(mixer(x, plan), expected, rtol=1e-11, atol=1e-11)
    with torch.inference_mode():
        mixer(x, plan)
    assert calls == [len(x)] * 2


def test_mixers_leave_to_products_what_it_does_not_take(calls):
    mixer, plan, x = mixer_and_plan()
    with torch.no_grad():
        with use_backend("torch"):
            expected = mixer(x, plan)
        mixer.reference = True
        torch.testing.assert_close(mixer(x, plan), expected, rtol=1e-11, atol=1e-11)
        mixer.reference, mixer.center_updates = False, 1
        mixer(x, plan)
    assert not calls


def test_mixers_take_it_under_autocast(calls):
    mixer, plan, x = mixer_and_plan()
    mixer, x = mixer.float(), x.float()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = mixer(x, plan)
        with use_backend("torch"):
            expected = mixer(x, plan)
    assert calls == [len(x)] and found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


def test_mixers_take_it_where_operations_are_watched_or_recorded(calls):
    mixer, plan, x = mixer_and_plan()
    with torch.no_grad():
        expected = mixer(x, plan)
        compiled = torch.compile(lambda x: mixer(x, plan), backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(x), expected)
        both = torch.vmap(lambda x: mixer(x, plan))(torch.stack([x, -x]))
        assert torch.equal(both[0], expected) and torch.equal(both[1], mixer(-x, plan))
        with FlopCounterMode(display=False) as count:
            mixer(x, plan)
        with use_backend("torch"), FlopCounterMode(display=False) as products:
            mixer(x, plan)
        assert 0.5 < count.get_total_flops() / products.get_total_flops() < 1  # products are padded
        two = mixer(TwoTensor(x, -x), plan)
        assert torch.equal(two.a, both[0]) and torch.equal(two.b, both[1])
    assert len(calls) == 6


def test_mixers_refuse_what_products_refuse(calls):
    """Forward-mode derivatives, which would be lost without a word."""
    mixer, plan, x = mixer_and_plan()
    with torch.no_grad(), forward_ad.dual_level(), pytest.raises(NotImplementedError):
        mixer(forward_ad.make_dual(x, torch.ones_like(x)), plan)
    assert not calls


def test_one_order_of_sums():
    """A function of its own is compiled by itself too, where a vector may be added up in another order: the process
    that compiles would call that one, and those that read what it kept the other."""
    code = cfunc(numba_kernels.SIGNATURE)(numba_kernels.work_for(np.float32, 1e-12)).inspect_llvm()
    names = re.findall(r'^define .*@"?([\w.$]+)"?\(', code, re.MULTILINE)
    defined = [name for name in names if "numba_kernels" in name]
    assert defined and all("work" in name for name in defined)
