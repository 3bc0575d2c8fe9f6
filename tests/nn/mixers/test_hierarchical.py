"""The mixer against the image network it comes from, written with that one's reshapes, and point by point on holes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.nn.mixers.clustering import Form
from pointmix.nn.mixers.hierarchical import ClusterMixer
from pointmix.nn.norm import SetIndex

F64 = dict(dtype=torch.float64)
TABLE = 7


def mixer_of(
    head_dim: int = 2,
    *,
    per_side: int = 2,
    centers: int = 2,
    global_side: int | None = 2,
    tables: bool = True,
    **kwargs,
) -> ClusterMixer:
    """A mixer in float64 with nothing at its start; of head_dim 2 it works at the points, of 8 at the centers."""
    torch.manual_seed(1)
    mixer = ClusterMixer(
        6,
        heads=2,
        head_dim=head_dim,
        centers=centers**2,
        table_size=TABLE if tables else None,
        global_centers=None if global_side is None else global_side**2,
        upper_table_size=per_side if tables else None,
        **kwargs,
    ).double()
    with torch.no_grad():
        for name, p in mixer.named_parameters():
            p.add_(0.5 * torch.randn_like(p) if name != "curvature.log_kappa" else 0)
        mixer.alpha_patch.add_(1)
    return mixer


def plan_of(points: PointSet, per_side: int, centers: int, global_side: int | None = None, pad: str = "needed"):
    options = dict(pad=pad, table_size=TABLE, global_centers_per_side=global_side)
    return points.layout.plan(points.pos.double(), points.ptr, per_side, centers, **options)


def run(mixer: ClusterMixer, points: PointSet, **kwargs) -> torch.Tensor:
    """The mixer's output, point by point."""
    plan = plan_of(points, **kwargs)
    return plan.from_window_order(mixer(plan.to_window_order(points.feat), plan, SetIndex.of(points)))


# ---- the literal form -----------------------------------------------------------------------------------------------


def lifted(x: torch.Tensor, kappa, released: bool) -> torch.Tensor:
    """Points of the hyperboloid, time first, for vectors clipped to norm 1."""
    x = x * (1 / x.norm(dim=-1, keepdim=True)).clamp(max=1)
    if released:  # the first number passes for a time
        square = x[..., 1:].square().sum(-1, keepdim=True) - x[..., :1].square()
        x, r = x[..., 1:], (kappa * square.clamp(min=1e-8)).sqrt()
    else:
        r = kappa**0.5 * x.norm(dim=-1, keepdim=True)
    x = x * r.sinh() / r
    return torch.cat([(1 / kappa + x.square().sum(-1, keepdim=True)).sqrt(), x], -1)


def similarity(c: torch.Tensor, q: torch.Tensor, geometry: str, kappa, released: bool) -> torch.Tensor:
    """(..., M, D), (..., L, D) to (..., M, L), pair by pair."""
    if geometry == "euclidean":
        return F.cosine_similarity(c[..., :, None, :], q[..., None, :, :], dim=-1)
    c, q = (lifted(t, kappa, released) for t in (c, q))
    product = c[..., :, None, :] * q[..., None, :, :]
    inner = product[..., 1:].sum(-1) - product[..., 0]
    return -torch.acosh((-kappa * inner).clamp(min=1 + 1e-6)) / kappa**0.5


def cluster(near, bias, alpha, v, cv):
    """Weights of points, and what they get."""
    a = (alpha * near + bias).softmax(-2)  # (..., M, L)
    g = (cv + (a[..., None] * v[..., None, :, :]).sum(-2)) / (1 + a.sum(-1)[..., None])
    return a, (a[..., None] * g[..., :, None, :]).sum(-3)


def literal(
    mixer: ClusterMixer,
    x: torch.Tensor,
    *,
    per_side: int,
    centers: int,
    global_side: int | None = None,
    pad="needed",
):
    """Of maps (B, C, H, W): the output, and the weights (B, E, H, W, M) of the cells at their window's centers."""
    heads, dim, batch = mixer.heads, mixer.head_dim, len(x)
    height, width = x.shape[2:]
    extra = [-side % per_side if pad == "needed" else per_side - side % per_side for side in (height, width)]
    above, left = (e // 2 for e in extra)
    x = F.pad(x, (left, extra[1] - left, above, extra[0] - above), mode="reflect")
    tall, wide = x.shape[2:]
    h, w = tall // per_side, wide // per_side
    alphas = [mixer.alpha_patch, mixer.alpha_window]
    alphas = [F.softplus(a) if a is not None and mixer.alpha == "softplus" else a for a in alphas]
    space = dict(kappa=mixer.curvature(), released=mixer.expmap == "released")

    def windows(t: torch.Tensor) -> torch.Tensor:  # (n, K, H, W) to (n, F, F, K, h, w)
        return t.reshape(len(t), -1, per_side, h, per_side, w).permute(0, 2, 4, 1, 3, 5)

    def points(t: torch.Tensor) -> torch.Tensor:  # (..., K, h, w) to (..., L, K)
        return t.flatten(-2).transpose(-1, -2)

    q, v = F.conv2d(x, mixer.qv.weight[..., None, None], mixer.qv.bias).chunk(2, 1)
    q, v = (t.reshape(batch * heads, dim, tall, wide) for t in (q, v))
    qw, vw = windows(q), windows(v)  # (B E, F, F, D, h, w)
    c, cv = (points(F.adaptive_avg_pool2d(t.flatten(0, 2), centers).unflatten(0, t.shape[:3])) for t in (qw, vw))
    bias = 0
    if mixer.bias_patch is not None:
        bias = F.interpolate(mixer.bias_patch, (tall, wide), mode="bilinear", align_corners=True)  # (E, M, H, W)
        bias = windows(bias).flatten(-2).repeat(batch, 1, 1, 1, 1)  # (B E, F, F, M, L)
    a, o = cluster(similarity(c, points(qw), mixer.geometry, **space), bias, alphas[0], points(vw), cv)
    back = o.unflatten(-2, (h, w)).permute(0, 5, 1, 3, 2, 4).reshape(batch, heads * dim, tall, wide)
    weights = a.unflatten(-1, (h, w)).permute(0, 1, 4, 2, 5, 3).reshape(batch, heads, tall, wide, -1)
    if global_side is not None:
        q1, v1 = (points(F.adaptive_avg_pool2d(t, per_side)) for t in (q, v))  # means of windows (B E, F F, D)
        c1, cv1 = (points(F.adaptive_avg_pool2d(t, global_side)) for t in (q, v))
        bias = 0 if mixer.bias_window is None else mixer.bias_window.flatten(2).repeat(batch, 1, 1)
        _, o = cluster(similarity(c1, q1, mixer.upper_geometry, **space), bias, alphas[1], v1, cv1)
        o = F.interpolate(o.transpose(1, 2).unflatten(2, (per_side, per_side)), (tall, wide), mode="nearest")
        back = torch.cat([back, o.reshape(batch, heads * dim, tall, wide)], 1)
    back = back[..., above : above + height, left : left + width]
    if mixer.norm is not None:
        back = F.group_norm(back, 1, mixer.norm.weight, mixer.norm.bias)
    out = F.conv2d(back, mixer.proj.weight[..., None, None], mixer.proj.bias)
    return out, weights[:, :, above : above + height, left : left + width]


def assert_is_literal(mixer: ClusterMixer, size: tuple[int, int], **kwargs) -> None:
    """Values on the grid and on the sparse grid, and gradients."""
    x = torch.randn(2, 6, *size, **F64, requires_grad=True)
    expected = literal(mixer, x, **kwargs)[0]
    probe, inputs = torch.randn_like(expected), [x, *mixer.parameters()]
    gradients = torch.autograd.grad(expected, inputs, probe, allow_unused=True)
    points = PointSet.from_images(x)
    for p in (points, points.as_sparse()):
        out = p.with_feat(run(mixer, p, **kwargs)).to_image()
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
        found = torch.autograd.grad(out, inputs, probe, retain_graph=True, allow_unused=True)
        for a, b in zip(found, gradients, strict=True):
            if b is not None:
                torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


SHAPES = [
    dict(size=(8, 12), per_side=2, centers=2, global_side=2),
    dict(size=(9, 13), per_side=2, centers=2, global_side=2),
    dict(size=(13, 10), per_side=4, centers=2, global_side=3),
    dict(size=(14, 14), per_side=7, centers=1, global_side=4),
    dict(size=(7, 7), per_side=1, centers=4, global_side=1),
    dict(size=(5, 6), per_side=1, centers=3, global_side=None),
]


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("head_dim", [2, 8])
@pytest.mark.parametrize("pad", ["needed", "always"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "{size}-{per_side}-{centers}-{global_side}".format(**s))
def test_is_the_network_of_images(shape, pad, head_dim, reference):
    settings = {key: value for key, value in shape.items() if key != "size"}
    assert_is_literal(mixer_of(head_dim, **settings, reference=reference), shape["size"], **settings, pad=pad)


SWITCHES = [
    *(dict(geometry=a, upper_geometry=b) for a in ("euclidean", "hyperbolic") for b in ("euclidean", "hyperbolic")),
    *(dict(curvature=k, geometry="hyperbolic") for k in (0.1, 10.0)),
    dict(curvature=10.0, learn_curvature=True),
    dict(expmap="released"),
    dict(expmap="released", geometry="hyperbolic", curvature=0.1),
    dict(cat_norm=True),
    dict(cat_norm=True, global_side=None),
    dict(alpha="softplus"),
    dict(tables=False),
    dict(global_side=None),
    dict(global_side=None, tables=False, geometry="hyperbolic"),
]


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("head_dim", [2, 8])
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_switches_are_those_of_the_network_of_images(switches, head_dim, reference):
    mixer = mixer_of(head_dim, **switches, reference=reference)
    global_side = switches.get("global_side", 2)
    for size in ((8, 12), (9, 7)):
        assert_is_literal(mixer, size, per_side=2, centers=2, global_side=global_side)


def test_form():
    x = torch.zeros(4, 8)
    assert mixer_of(8).form(x) is mixer_of(8, upper_geometry="euclidean").form(x) is Form.AT_CENTERS
    assert mixer_of(8, reference=True).form(x) is Form.REFERENCE
    for mixer in (mixer_of(2), mixer_of(8, geometry="hyperbolic"), mixer_of(8, cat_norm=True)):
        assert mixer.form(x) is Form.PRODUCTS


# ---- holes ----------------------------------------------------------------------------------------------------------


def of_present(
    mixer: ClusterMixer, image, mask, *, per_side: int, centers: int, global_side: int | None
) -> torch.Tensor:
    """One set, (C, H, W) with a mask, from sums over the points that are there, copies by reflection among them."""
    heads, dim = mixer.heads, mixer.head_dim
    height, width = mask.shape
    down, right = (-side % per_side for side in mask.shape)
    edges = (right // 2, right - right // 2, down // 2, down - down // 2)
    x = F.pad(image[None], edges, mode="reflect")[0]
    there = F.pad(mask[None, None].double(), edges, mode="reflect")[0, 0].bool()
    tall, wide = there.shape
    h, w = tall // per_side, wide // per_side
    space = dict(kappa=mixer.curvature(), released=False)
    q, v = F.linear(x.movedim(0, -1), mixer.qv.weight, mixer.qv.bias).unflatten(-1, (2, heads, dim)).unbind(2)
    bias = F.interpolate(mixer.bias_patch, (tall, wide), mode="bilinear", align_corners=True)  # (E, M, H, W)

    def mean(t, part):  # (E, D) of the present cells of a part, None without any
        rows = t[part][there[part]]
        return rows.mean(0) if len(rows) else None

    def pooled(t, rows: slice, cols: slice, cells: int) -> list:  # adaptive average pooling
        out = []
        for i in range(cells):
            for j in range(cells):
                n, m = rows.stop - rows.start, cols.stop - cols.start
                part = (
                    slice(rows.start + i * n // cells, rows.start + -(-(i + 1) * n // cells)),
                    slice(cols.start + j * m // cells, cols.start + -(-(j + 1) * m // cells)),
                )
                out.append(mean(t, part))
        return out

    def clustered(q, v, c, cv, bias, alpha, geometry):
        """Points (n, E, D), centers as a list in which some are None, bias (E, M, n)."""
        exist = [m for m, center in enumerate(c) if center is not None]
        c, cv = (torch.stack([t[m] for m in exist], 1) for t in (c, cv))  # (E, M', D)
        near = similarity(c, q.transpose(0, 1), geometry, **space)
        return cluster(near, bias[:, exist], alpha, v.transpose(0, 1), cv)[1].transpose(0, 1)  # (n, E, D)

    parts = [(slice(i * h, i * h + h), slice(j * w, j * w + w)) for i in range(per_side) for j in range(per_side)]
    full = [p for p in parts if there[p].any()]
    local = torch.zeros(tall, wide, heads, dim, **F64)
    for p in full:
        alive = there[p]
        c, cv = (pooled(t, *p, centers) for t in (q, v))
        spot = bias[(slice(None), slice(None), *p)][..., alive]  # (E, M, n)
        found = clustered(q[p][alive], v[p][alive], c, cv, spot, mixer.alpha_patch, mixer.geometry)
        local[p] = local[p].masked_scatter(alive[..., None, None], found)
    out = local
    if global_side is not None:
        whole = slice(0, tall), slice(0, wide)
        spot = mixer.bias_window.flatten(2)[..., [parts.index(p) for p in full]]
        qs, vs = (torch.stack([mean(t, p) for p in full]) for t in (q, v))
        found = clustered(
            qs, vs, *(pooled(t, *whole, global_side) for t in (q, v)), spot, mixer.alpha_window, mixer.upper_geometry
        )
        above = torch.zeros_like(local)
        for p, value in zip(full, found, strict=True):
            above[p] = value
        out = torch.cat([local, above], 2)
    out = mixer.proj(out.flatten(2))[edges[2] : edges[2] + height, edges[0] : edges[0] + width]
    return out[mask]


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("head_dim", [2, 8])
@pytest.mark.parametrize("geometry", ["euclidean", "hyperbolic"])
@pytest.mark.parametrize("per_side, centers, global_side", [(2, 2, 2), (4, 2, 3), (4, 1, None), (1, 3, 1)])
def test_holes_are_left_out_of_every_mean(per_side, centers, global_side, geometry, head_dim, reference):
    """Windows and centers without a point are left out; the other sets of the batch do not matter."""
    mixer = mixer_of(
        head_dim,
        per_side=per_side,
        centers=centers,
        global_side=global_side,
        geometry=geometry,
        reference=reference,
    )
    images = [torch.randn(6, *size, **F64) for size in ((9, 13), (8, 8), (5, 6), (12, 12))]
    masks = [torch.rand(9, 13) < 0.3, torch.ones(8, 8).bool(), torch.zeros(5, 6).bool(), torch.zeros(12, 12).bool()]
    masks[2][1, 3] = masks[3][:3, :3] = masks[3][11, 11] = True  # a single point; a crowd and one far away
    points = PointSet.from_images(images, masks)
    out = run(mixer, points, per_side=per_side, centers=centers, global_side=global_side)
    for row, image, mask in zip(out.split(points.ptr.diff().tolist()), images, masks, strict=True):
        expected = of_present(mixer, image, mask, per_side=per_side, centers=centers, global_side=global_side)
        torch.testing.assert_close(row, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("switches", [{}, *SWITCHES], ids=str)
@pytest.mark.parametrize("head_dim", [2, 8])
def test_reference_form_on_ragged_sets(head_dim, switches, ragged):
    points = ragged.with_feat(torch.randn(len(ragged.feat), 6, **F64))
    probe, results = torch.randn(len(points.feat), 6, **F64), []
    for reference in (False, True):
        mixer = mixer_of(head_dim, per_side=3, **switches, reference=reference)
        out = run(mixer, points, per_side=3, centers=2, global_side=switches.get("global_side", 2))
        (out * probe).sum().backward()
        results.append([out, *(p.grad for p in mixer.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


# ---- what follows from the equations --------------------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("geometry", ["euclidean", "hyperbolic"])
def test_one_center_above_one_window_is_the_mean_of_values(geometry, sparse):
    """As in the third stage: its scale and its table have no gradient, and neither is NaN."""
    mixer = mixer_of(per_side=1, global_side=1, upper_geometry=geometry)
    points = PointSet.from_images(torch.randn(2, 6, 6, 4, **F64))
    points = points.as_sparse() if sparse else points
    plan = plan_of(points, 1, 2, global_side=1)
    over = mixer.upper(plan.window_partition(plan.to_window_order(points.feat)), plan)  # (S, E D)
    v = mixer.qv(points.feat)[:, 4:]
    torch.testing.assert_close(over, v.view(2, 24, 4).mean(1))
    over.square().sum().backward()
    for p in (mixer.alpha_window, mixer.bias_window):
        torch.testing.assert_close(p.grad, torch.zeros_like(p), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("per_side", [1, 2])
def test_one_global_center_gives_the_same_without_gradients(per_side, sparse):
    mixer = mixer_of(per_side=per_side, global_side=1)
    images, masks = torch.randn(2, 6, 6, 6, **F64), None
    if sparse:  # sets with different numbers of windows
        masks = torch.rand(2, 6, 6) < 0.6
        masks[0, :3], masks[:, 5] = False, True
    points = PointSet.from_images(images, masks)
    given = dict(per_side=per_side, centers=2, global_side=1)
    expected = run(mixer, points, **given)
    with torch.no_grad():
        torch.testing.assert_close(run(mixer, points, **given), expected.detach())


@pytest.mark.parametrize("kind", ["even", "reflected", "ragged"])
@pytest.mark.parametrize("head_dim", [2, 8])
@pytest.mark.parametrize("geometry", ["euclidean", "hyperbolic"])
def test_assignment_is_the_heaviest_center(geometry, head_dim, kind, ragged):
    mixer = mixer_of(head_dim, geometry=geometry)
    points = ragged
    if kind != "ragged":
        points = PointSet.from_images(torch.randn(2, 3, *((8, 8) if kind == "even" else (7, 9)), **F64))
    points = points.with_feat(torch.randn(len(points.feat), 6, **F64))
    plan = plan_of(points, 2, 2, global_side=2)
    center, weight = (plan.from_window_order(t) for t in mixer.assignment(plan.to_window_order(points.feat), plan))
    assert center.shape == weight.shape == (len(points.feat), 2)
    assert (weight > 1 / 4 - 1e-9).all() and (weight <= 1).all()  # of four centers the heaviest
    window = torch.arange(plan.num_windows if kind == "ragged" else 8)
    window = window if plan.row_window is None else window[plan.row_window]
    window = (
        window[:, None, None]
        .expand(*plan.window_partition(plan.to_window_order(points.feat)).shape[:2], 1)
        .contiguous()
    )
    assert torch.equal(center // 4, plan.from_window_order(plan.window_reverse(window)).expand(-1, 2))
    if kind != "ragged":
        a = literal(mixer, points.to_image(), per_side=2, centers=2, global_side=2)[1]  # (B, E, H, W, M)
        best, index = a.movedim(1, 3).flatten(0, 2).max(-1)
        torch.testing.assert_close(weight, best)
        assert torch.equal(center % 4, index)


def test_a_single_point_is_its_window_and_its_center():
    """All weights are one over the centers that exist, which are one: its value comes back from both levels."""
    mixer = mixer_of(tables=False)
    points = PointSet.from_image(torch.randn(6, 5, 5, **F64), torch.arange(25).view(5, 5) == 12)
    v = mixer.qv(points.feat)[:, 4:]
    torch.testing.assert_close(
        run(mixer, points, per_side=1, centers=1, global_side=1), mixer.proj(torch.cat([v, v], 1))
    )
