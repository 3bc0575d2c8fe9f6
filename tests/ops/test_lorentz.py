from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pointmix.ops.lorentz import (
    MAX_RADIUS,
    clip_norm,
    distance,
    distance_reference,
    expmap0,
    expmap0_released,
    inner,
    pairwise_distance,
    time,
)

KAPPAS = (0.1, 1.0, 10.0)
EPS = {torch.float32: 1e-6, torch.float64: 1e-14}
OPS = {
    "clip_norm": lambda x, y, kappa: clip_norm(x),
    "expmap0": lambda x, y, kappa: expmap0(x, kappa),
    "expmap0_released": lambda x, y, kappa: expmap0_released(x, kappa),
    "time": lambda x, y, kappa: time(x, kappa),
    "inner": inner,
    "distance": distance,
    "pairwise_distance": pairwise_distance,
}
WITH_KAPPA = [name for name in OPS if name != "clip_norm"]

pytestmark = pytest.mark.parametrize("seed", [0, 1, 2])
over_kappas = pytest.mark.parametrize("kappa", KAPPAS)
over_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.fixture(autouse=True)
def seeded(seed):
    torch.manual_seed(seed)


def vectors(*shape, dtype=torch.float64, longest=2.0):
    """Random directions with lengths uniform up to `longest`."""
    direction = F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)
    return (direction * torch.rand(*shape[:-1], 1, dtype=torch.float64) * longest).to(dtype)


def pairs(count, dim, kappa, *, longest=100.0, near=1e-6, far=10.0):
    """float32 points of norm 0 to `longest`, `near` to `far` apart on geodesics in all directions, radial ones too."""
    unit, root = F.normalize(torch.randn(count, dim, dtype=torch.float64), dim=-1), math.sqrt(kappa)
    norm = torch.rand(count, 1, dtype=torch.float64) * longest
    norm = torch.where(torch.rand(count, 1) < 0.3, longest * 10 ** (-8 * torch.rand(count, 1)), norm)
    x = unit * norm
    across = torch.randn(count, dim, dtype=torch.float64)
    across = F.normalize(across - (across * unit).sum(-1, keepdim=True) * unit, dim=-1)
    angle = torch.rand(count, 1, dtype=torch.float64) * 2 * math.pi
    angle = torch.where(torch.rand(count, 1) < 0.2, (angle / math.pi).round() * math.pi, angle)
    tangent = angle.cos() * (1 + kappa * norm**2).sqrt() * unit + angle.sin() * across
    d = near * (far / near) ** torch.rand(count, 1, dtype=torch.float64)
    y = x * torch.cosh(root * d) + tangent * torch.sinh(root * d) / root
    keep = y.norm(dim=-1) <= longest
    return x[keep].float(), y[keep].float()


def exact(x, y, kappa):
    """The distance of two points by acosh, in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        x, y, kappa = [Decimal(a) for a in x.tolist()], [Decimal(a) for a in y.tolist()], Decimal(kappa)
        xt, yt = ((1 / kappa + sum(a * a for a in p)).sqrt() for p in (x, y))
        z = kappa * (xt * yt - sum(a * b for a, b in zip(x, y, strict=True)))
        return float((z + max(z * z - 1, Decimal(0)).sqrt()).ln() / kappa.sqrt())


@over_kappas
@over_dtypes
def test_closed_forms(kappa, dtype, seed):
    eps = EPS[dtype]
    v = torch.tensor([[0.3, 0.4], [0.3, 0.0], [0.0, 0.4]], dtype=dtype)
    x = expmap0(v, kappa)
    assert x.dtype == dtype
    d = distance(x[0], torch.zeros(2, dtype=dtype), kappa)
    assert d.dtype == dtype and d.shape == ()
    assert d.item() == pytest.approx(0.5, rel=eps, abs=0)
    printed = {0.1: 0.500478970741, 1.0: 0.504698119362, 10.0: 0.538941397546}[kappa]
    assert distance(x[1], x[2], kappa).item() == pytest.approx(printed, rel=max(eps, 2e-12))
    assert distance_reference(x[1], x[2], kappa).item() == pytest.approx(printed, rel=max(4 * eps, 2e-12))
    pairwise = pairwise_distance(x, x, kappa)
    assert pairwise.dtype == dtype
    assert pairwise[1, 2].item() == pytest.approx(printed, rel=max(4 * eps, 2e-12))


def test_tends_to_the_euclidean_distance(seed):
    v, w = vectors(9, 4), vectors(9, 4)
    flat = (v - w).norm(dim=-1)
    for kappa in (1e-4, 1e-8, 1e-12):
        d = distance(expmap0(v, kappa), expmap0(w, kappa), kappa)
        torch.testing.assert_close(d, flat, rtol=10 * kappa + 1e-14, atol=0)


@over_kappas
@over_dtypes
def test_lift(kappa, dtype, seed):
    eps = EPS[dtype]
    v = vectors(64, 5, dtype=dtype, longest=3.0)
    v[:20] *= torch.logspace(-15, 0, 20, dtype=dtype)[:, None]  # the series, its end, and all before
    x = expmap0(v, kappa)
    assert x.dtype == dtype
    length, root = v.norm(dim=-1), math.sqrt(kappa)
    torch.testing.assert_close(x.norm(dim=-1), torch.sinh(root * length) / root, rtol=10 * eps, atol=0)
    torch.testing.assert_close(time(x, kappa), torch.cosh(root * length) / root, rtol=10 * eps, atol=0)
    torch.testing.assert_close(F.normalize(x, dim=-1, eps=0), F.normalize(v, dim=-1, eps=0), rtol=0, atol=2 * eps)
    torch.testing.assert_close(distance(x, torch.zeros_like(x), kappa), length, rtol=10 * eps, atol=0)
    torch.testing.assert_close(distance(x, expmap0(-v, kappa), kappa), 2 * length, rtol=10 * eps, atol=0)
    square = inner(x, x, kappa)
    assert square.dtype == time(x, kappa).dtype == dtype
    assert ((square + 1 / kappa).abs() <= 4 * eps * time(x, kappa) ** 2).all()


@over_kappas
def test_series_and_functions_meet(kappa, seed):
    root = math.sqrt(kappa)
    for r in (1e-9, 1e-3, 0.02, 0.0316, 0.0317, 0.04, 1.0):
        point = torch.tensor([r / root], dtype=torch.float64)
        assert expmap0(point, kappa).item() == pytest.approx(math.sinh(root * point.item()) / root, rel=1e-15, abs=0)


@over_kappas
@over_dtypes
def test_long_vectors_lift_to_the_last_radius(kappa, dtype, seed):
    length = torch.tensor([12, 50, 90, 1e4, 1e10], dtype=dtype)
    v = F.normalize(torch.randn(5, 3, dtype=dtype), dim=-1) * length[:, None]
    x = expmap0(v / math.sqrt(kappa), kappa)
    torch.testing.assert_close(x.norm(dim=-1) * math.sqrt(kappa), torch.full((5,), 2.0**15, dtype=dtype))
    torch.testing.assert_close(F.normalize(x, dim=-1), F.normalize(v, dim=-1))
    edge = v[:1] / 12 * (MAX_RADIUS * 0.999) / math.sqrt(kappa)
    length = distance(expmap0(edge, kappa), torch.zeros(1, 3, dtype=dtype), kappa)
    torch.testing.assert_close(length, edge.norm(dim=-1))


@over_kappas
@over_dtypes
def test_metric(kappa, dtype, seed):
    eps = EPS[dtype]
    x, y, z = expmap0(vectors(3, 200, 4, dtype=dtype), kappa)
    xy, yz, xz = distance(x, y, kappa), distance(y, z, kappa), distance(x, z, kappa)
    assert xy.dtype == dtype
    torch.testing.assert_close(xy, distance(y, x, kappa), rtol=eps, atol=0)
    assert (distance(x, x, kappa) == 0).all() and (xy > 0).all()
    assert (xz <= (xy + yz) * (1 + eps)).all()
    torch.testing.assert_close(torch.cosh(math.sqrt(kappa) * xy), -kappa * inner(x, y, kappa), rtol=100 * eps, atol=0)
    torch.testing.assert_close(distance(x[:, None], y, kappa).diagonal(), xy, rtol=0, atol=0)
    reference = distance_reference(x, y, kappa)  # its argument is off by eps times the largest term
    assert reference.dtype == dtype
    off = (torch.cosh(math.sqrt(kappa) * reference) - torch.cosh(math.sqrt(kappa) * xy)).abs()
    assert (off <= 20 * eps * kappa * time(x, kappa) * time(y, kappa)).all()


@over_kappas
@over_dtypes
def test_pairwise_is_elementwise(kappa, dtype, seed):
    c, x = expmap0(vectors(2, 5, 6, dtype=dtype), kappa), expmap0(vectors(2, 7, 6, dtype=dtype), kappa)
    x[:, 0] = c[:, 0]
    root = math.sqrt(kappa)
    pairwise, elementwise = pairwise_distance(c, x, kappa), distance(c[:, :, None], x[:, None], kappa)
    assert pairwise.dtype == dtype and pairwise.shape == (2, 5, 7)
    scale = 1 + kappa * time(c, kappa)[:, :, None] * time(x, kappa)[:, None]
    off = (torch.cosh(root * pairwise) - torch.cosh(root * elementwise).clamp(min=1 + 1e-6)).abs()
    assert (off <= EPS[dtype] * scale * (1 + root * elementwise)).all()  # the distances' own rounding, too, in a cosh
    assert (pairwise >= 0.99 * 1.414e-3 / root).all()


def test_pairwise_forms_nothing_of_centers_points_and_dims(seed):
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            tensors = out if isinstance(out, (tuple, list)) else [out]
            self.numel = max([self.numel, *(t.numel() for t in tensors if isinstance(t, torch.Tensor))])
            return out

    c, x = vectors(2, 40, 30).requires_grad_(), vectors(2, 50, 30).requires_grad_()
    with Largest() as largest:
        pairwise_distance(c, x, 1.0).sum().backward()
    assert largest.numel == 2 * 40 * 50
    with Largest() as largest:  # the check sees such tensors
        distance(c[:, :, None], x[:, None], 1.0)
    assert largest.numel == 2 * 40 * 50 * 30


@over_kappas
@pytest.mark.parametrize("dim", [1, 2, 3, 24])
def test_distance_of_float32_points_is_right_to_a_millionth(kappa, dim, seed):
    x, y = pairs(10000, dim, kappa)
    reference = distance(x.double(), y.double(), kappa)
    sample = torch.tensor([exact(x[i], y[i], kappa) for i in range(0, len(x), 400)], dtype=torch.float64)
    torch.testing.assert_close(reference[::400], sample, rtol=1e-9, atol=1e-20)
    asked = (reference >= 1e-6) & (reference <= 10)
    assert asked.sum() > 5000
    d = distance(x, y, kappa)
    assert d.dtype == torch.float32
    assert ((d.double() - reference).abs() / reference)[asked].max() <= 1e-6
    if dim > 1:
        direct = distance_reference(x, y, kappa).double()
        assert ((direct - reference).abs() / reference)[asked].max() > 0.1  # what the chord is for


@over_kappas
def test_distance_has_the_gradient_of_float64(kappa, seed):
    x, y = pairs(1000, 3, kappa)
    grads = []
    for dtype in (torch.float32, torch.float64):
        leaf = x.to(dtype, copy=True).requires_grad_()
        distance(leaf, y.to(dtype), kappa).sum().backward()
        grads.append(leaf.grad)
    assert grads[0].dtype == torch.float32
    torch.testing.assert_close(grads[0].double(), grads[1], rtol=1e-6, atol=1e-9)


@over_dtypes
def test_clip_norm(dtype, seed):
    v = vectors(50, 4, dtype=dtype, longest=3.0)
    v[:10] *= torch.logspace(-15, 0, 10, dtype=dtype)[:, None]
    length = v.norm(dim=-1)
    for longest in (1e-7, 1.0, 2.5):
        clipped = clip_norm(v, longest)
        assert clipped.dtype == dtype
        assert torch.equal(clipped[length < longest], v[length < longest])
        expected = torch.full_like(length, longest)[length > longest]
        torch.testing.assert_close(clipped.norm(dim=-1)[length > longest], expected)
        torch.testing.assert_close(F.normalize(clipped, dim=-1, eps=0), F.normalize(v, dim=-1, eps=0))


@over_kappas
@over_dtypes
def test_lift_released(kappa, dtype, seed):
    v = vectors(20, 4, dtype=dtype)
    v[:5, 0] = 3.0  # a time longer than the space
    v[5:10, 0] = 0
    x = expmap0_released(v, kappa)
    assert x.dtype == dtype and x.shape == (20, 3)
    torch.testing.assert_close(x[5:10], expmap0(v[5:10, 1:], kappa), rtol=10 * EPS[dtype], atol=0)
    torch.testing.assert_close(x[:5], v[:5, 1:], rtol=1e-7 + EPS[dtype], atol=0)  # sinh(1e-4) / 1e-4
    assert (x[10:] - expmap0(v[10:, 1:], kappa)).abs().max() > 1e-3


@over_kappas
def test_agrees_with_geoopt(kappa, seed):
    geoopt = pytest.importorskip("geoopt", reason="geoopt, a reference for hyperbolic geometry, is not installed")
    manifold = geoopt.Lorentz(k=torch.tensor(1 / kappa, dtype=torch.float64))
    v, w = vectors(100, 5), vectors(100, 5)
    x, y = expmap0(v, kappa), expmap0(w, kappa)
    theirs = [manifold.expmap0(F.pad(u, (1, 0))) for u in (v, w)]
    torch.testing.assert_close(torch.cat([time(x, kappa)[:, None], x], -1), theirs[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(inner(x, y, kappa), manifold.inner(None, *theirs), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(distance(x, y, kappa), manifold.dist(*theirs), rtol=1e-11, atol=0)
    torch.testing.assert_close(expmap0_released(v, kappa), manifold.expmap0(v)[:, 1:], rtol=1e-12, atol=1e-13)


@over_kappas
@over_dtypes
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", OPS)
def test_finite(name, kappa, dtype, autocast, seed):
    """Values and gradients at zero, at coincident and opposite points, for norms of 1e-15 to 1e4, and in bfloat16."""
    norm = torch.cat([torch.zeros(1), torch.logspace(-15, 4, 20)])[:, None]
    direction = F.normalize(torch.randn(3, 21, 4), dim=-1)
    x, far = norm * direction[0], norm * direction[1]
    others = torch.stack([x, -x, far, x * (1 + 1e-6 * direction[2]), torch.zeros_like(x)])
    for lifted in (False, True):
        leaves = [t.to(torch.bfloat16 if autocast else dtype) for t in (x.expand(5, 21, 4), others)]
        leaves = [t.detach().clone().requires_grad_() for t in leaves]
        log_kappa = torch.tensor(math.log(kappa), requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            points = [expmap0(t, log_kappa.exp()) for t in leaves] if lifted else leaves
            out = OPS[name](*points, log_kappa.exp())
        assert out.dtype == (torch.float32 if autocast else dtype)
        assert out.isfinite().all()
        grads = torch.autograd.grad(out.sum(), [*leaves, log_kappa], allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in grads)


@over_kappas
def test_autocast_changes_nothing(kappa, seed):
    x, y = vectors(6, 4, dtype=torch.float32), vectors(6, 4, dtype=torch.float32)
    for op in OPS.values():
        with torch.autocast("cpu", torch.bfloat16):
            inside = op(x, y, kappa)
        assert torch.equal(inside, op(x, y, kappa))
        for half in (torch.float16, torch.bfloat16):
            out = op(x.to(half), y.to(half), kappa)
            assert out.dtype == torch.float32
            assert torch.equal(out, op(x.to(half).float(), y.to(half).float(), kappa))


@pytest.mark.parametrize("name", OPS)
def test_a_tensor_of_kappa_is_a_number(name, seed):
    x, y = vectors(6, 4), vectors(6, 4)
    for dtype in (torch.float32, torch.float64):  # the points alone decide the result's
        for kappa_dtype in (torch.float32, torch.float64, torch.bfloat16):
            out = OPS[name](x.to(dtype), y.to(dtype), torch.tensor(0.25, dtype=kappa_dtype))
            assert out.dtype == dtype
            torch.testing.assert_close(out, OPS[name](x.to(dtype), y.to(dtype), 0.25))
    assert time(x[0].float(), torch.tensor(0.25).double()).dtype == torch.float32


@pytest.mark.parametrize("name", OPS)
def test_gradcheck(name, seed):
    x, y = vectors(4, 3).requires_grad_(), vectors(4, 3).requires_grad_()
    small = (vectors(4, 3) * 1e-2).requires_grad_()
    kappa = torch.tensor(KAPPAS[seed], dtype=torch.float64, requires_grad=True)
    for points in ((x, y), (small, y), (small, (small * 1.3).detach().requires_grad_())):
        assert torch.autograd.gradcheck(OPS[name], (*points, kappa), atol=1e-5)
    assert torch.autograd.gradcheck(OPS[name], (torch.zeros_like(x).requires_grad_(), y, kappa), atol=1e-5)


def test_compiles_without_a_break(seed):
    x, y, number = vectors(6, 4, dtype=torch.float32), vectors(6, 4, dtype=torch.float32), KAPPAS[seed]
    torch._dynamo.reset()

    def all_of(x, y, kappa):
        return [op(x, y, kappa) for op in OPS.values()]

    for kappa in (number, torch.tensor(number)):
        with torch.autocast("cpu", torch.bfloat16):
            compiled = torch.compile(all_of, fullgraph=True, backend="eager")(x, y, kappa)
        for ours, expected in zip(compiled, all_of(x, y, kappa), strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kappa", [0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", WITH_KAPPA)
def test_kappa_must_be_positive(name, kappa, seed):
    with pytest.raises(ValueError, match=f"kappa must be a positive number.*got {kappa}"):
        OPS[name](vectors(2, 3), vectors(2, 3), kappa)


def test_bad_arguments(seed):
    with pytest.raises(ValueError, match="longest must be a positive number, got 0"):
        clip_norm(vectors(2, 3), 0)
    with pytest.raises(ValueError, match="at least one space coordinate, got 1"):
        expmap0_released(vectors(2, 1), 1.0)


def test_shapes_without_points(seed):
    x, y = torch.zeros(2, 0, 3), torch.zeros(2, 5, 3)
    assert pairwise_distance(x, y, 1.0).shape == (2, 0, 5)
    assert expmap0(x, 1.0).shape == clip_norm(x).shape == (2, 0, 3)
    assert distance(x, x, 1.0).shape == (2, 0)
