from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pointmix.ops import largest as module
from pointmix.ops.clustering.pool import cluster_pool, cluster_pool_reference, nearest_center
from pointmix.ops.ragged import counts_to_ptr

F64 = dict(dtype=torch.float64)
CASES = {
    "even": ([12, 12, 12], [3, 3, 3]),
    "ragged": ([30, 1, 7, 2], [8, 1, 2, 2]),
    "one of everything": ([1], [1]),
    "more centers than points": ([2, 3], [6, 4]),
}


def case(name: str, *, channels: int = 4, dim: int = 3, out: int = 5):
    """Arguments of the op; the first six are features, pooled features and weights."""
    points, centers = CASES[name]
    shapes = [(sum(points), channels), (sum(centers), channels), (dim, channels), (dim,), (out, channels), (out,)]
    tensors = [torch.randn(shape, **F64).requires_grad_(i not in (2, 3)) for i, shape in enumerate(shapes)]
    return [*tensors, counts_to_ptr(torch.tensor(points)), counts_to_ptr(torch.tensor(centers))]


def literal(x, pooled, wq, bq, wv, bv, ptr, center_ptr, *, center_valid=None):
    """The equations point by point, and the center of each point."""
    q, v, c, cv = x @ wq.T + bq, x @ wv.T + bv, pooled @ wq.T + bq, pooled @ wv.T + bv
    top, bottom, joined = cv.clone(), torch.ones(len(pooled), **F64), []
    for b in range(len(ptr) - 1):
        for n in range(ptr[b], ptr[b + 1]):
            best, center = -2.0, None
            for k in range(center_ptr[b], center_ptr[b + 1]):
                cos = (c[k] @ q[n] / (c[k].norm() * q[n].norm())).item()
                if cos > best and (center_valid is None or center_valid[k]):
                    best, center = cos, k
            joined.append(center)
            top[center] += v[n]
            bottom[center] += 1
    return top / bottom[:, None], torch.tensor(joined)


def lost(arguments) -> torch.Tensor:
    """Some centers that no point joins, none of them a set's first."""
    valid = torch.rand(len(arguments[1])) < 0.5
    valid[arguments[-1][:-1]] = True
    return valid


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_against_the_equations_point_by_point(name, gone):
    arguments = case(name)
    valid = lost(arguments) if gone else None
    with torch.no_grad():
        expected, joined = literal(*arguments, center_valid=valid)
        for op in (cluster_pool, cluster_pool_reference):
            torch.testing.assert_close(op(*arguments, center_valid=valid), expected)
        where = arguments[:4] + arguments[-2:]
        assert torch.equal(nearest_center(*where, center_valid=valid), joined)
        if name == "even":
            assert torch.equal(nearest_center(*where, even=True, center_valid=valid), joined)


@pytest.mark.parametrize("piece", [1, 20, 2**22])
@pytest.mark.parametrize("name", CASES)
def test_reference_form_has_the_same_values_and_gradients(name, piece, monkeypatch):
    monkeypatch.setattr(module, "PIECE", piece)
    arguments = case(name)
    probe, results = torch.randn(len(arguments[1]), 5, **F64), []
    runs = [cluster_pool, cluster_pool_reference] + [partial(cluster_pool, even=True)] * (name == "even")
    for op in runs:
        out = op(*arguments)
        trained = [t for t in arguments[:6] if t.requires_grad]
        results.append([out, *torch.autograd.grad((out * probe).sum(), trained)])
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            torch.testing.assert_close(a, b)
            assert b.abs().max() > 0


def test_gradients_against_differences():
    x, pooled, wq, bq, wv, bv, *ptr = case("ragged")

    def run(x, pooled, wv, bv):
        return cluster_pool(x, pooled, wq, bq, wv, bv, *ptr)

    assert torch.autograd.gradcheck(run, (x, pooled, wv, bv))


def test_the_choice_has_no_gradient():
    arguments = case("ragged")
    for op in (cluster_pool, cluster_pool_reference):
        arguments[2].requires_grad_(), arguments[3].requires_grad_()
        gradients = torch.autograd.grad(op(*arguments).sum(), arguments[2:4], allow_unused=True)
        assert all(g is None or (g == 0).all() for g in gradients)


def test_of_equal_similarities_the_first_is_taken():
    """Nothing is like a query without a length, and it joins the first center; so do all where centers have none."""
    x, pooled, wq, bq, *_, ptr, center_ptr = (t.detach() for t in case("ragged"))
    bq = torch.zeros_like(bq)
    first = center_ptr[:-1].repeat_interleave(ptr.diff())
    for zero in ("x", "pooled", "map"):
        inputs = dict(x=x, pooled=pooled, map=wq) | {zero: torch.zeros_like(dict(x=x, pooled=pooled, map=wq)[zero])}
        found = nearest_center(*inputs.values(), bq, ptr, center_ptr)
        assert torch.equal(found, first), zero
    same = pooled[:1].expand_as(pooled).contiguous()
    assert torch.equal(nearest_center(x, same, wq, bq, ptr, center_ptr), first)


def test_zero_everything_is_finite():
    arguments = [torch.zeros_like(t) if t.is_floating_point() else t for t in case("ragged")]
    arguments = [t.requires_grad_() if t.is_floating_point() else t for t in arguments]
    for op in (cluster_pool, cluster_pool_reference):
        out = op(*arguments)
        gradient = torch.autograd.grad(out.sum(), arguments[0])[0]
        assert (out == 0).all() and gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_many_points_in_low_precision(dtype):
    """Summed in the dtype itself, they would stop growing at 2048 or 256 points."""
    x = torch.ones(5000, 1, dtype=dtype)
    one, zero = torch.ones(1, 1, dtype=dtype), torch.zeros(1, dtype=dtype)
    out = cluster_pool(x, one * 5, one, zero, one, zero, torch.tensor([0, 5000]), torch.tensor([0, 1]))
    assert out.dtype == dtype
    assert out.item() == pytest.approx(5005 / 5001, abs=torch.finfo(dtype).eps)


def test_a_nan_stays_in_its_set():
    arguments = [t.detach() for t in case("ragged")]
    clean = cluster_pool(*arguments)
    arguments[0][3] = float("nan")
    dirty = cluster_pool(*arguments)
    assert dirty[:8].isnan().any() and torch.equal(dirty[8:], clean[8:])


def test_never_forms_the_whole_similarity(monkeypatch):
    assert module.PIECE < 784 * 3136  # of a 56x56 lattice
    monkeypatch.setattr(module, "PIECE", 1000)
    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **kwargs or {})
            largest.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    arguments = [t.detach() for t in case("even")]
    arguments[0] = torch.randn(3 * 400, 4, **F64)
    arguments[1] = torch.randn(3 * 100, 4, **F64)
    arguments[-2:] = counts_to_ptr(torch.tensor([400] * 3)), counts_to_ptr(torch.tensor([100] * 3))
    for even in (False, True):
        largest.clear()
        with Watch():
            cluster_pool(*arguments, even=even)
        assert 0 < max(largest) <= 3 * 400 * 5
