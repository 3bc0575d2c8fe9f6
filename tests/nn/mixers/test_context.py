from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.nn.mixers.clustering import Form
from pointmix.nn.mixers.context import ContextCluster
from pointmix.ops import use_backend

RULES = [dict(denominator="weights"), dict(denominator="count"), dict(unweighted=True)]


def mixer_of(head_dim: int = 3, **kwargs) -> ContextCluster:
    torch.manual_seed(1)
    mixer = ContextCluster(6, heads=2, head_dim=head_dim, **kwargs).double()
    with torch.no_grad():
        mixer.alpha.fill_(1.8)
        mixer.beta.fill_(-0.4)
    return mixer


def plan_of(points: PointSet, per_side: int, centers: int):
    return points.layout.plan(points.pos.double(), points.ptr, per_side, centers)


def released(mixer: ContextCluster, x: torch.Tensor, per_side: int, centers: int) -> torch.Tensor:
    """The released network's arithmetic on maps (B, C, H, W), written with its reshapes."""
    weight, bias = mixer.qv.weight[..., None, None], mixer.qv.bias
    q, v = F.conv2d(x, weight, bias).chunk(2, 1)
    batch, _, height, width = q.shape
    h, w = height // per_side, width // per_side

    def windows(t):  # (B, E D, H, W) -> (B E F F, D, h, w)
        t = t.reshape(batch * mixer.heads, mixer.head_dim, per_side, h, per_side, w)
        return t.permute(0, 2, 4, 1, 3, 5).reshape(-1, mixer.head_dim, h, w)

    q, v = windows(q), windows(v)
    c, cv = (F.adaptive_avg_pool2d(t, centers).flatten(2).transpose(1, 2) for t in (q, v))  # (S, M, D)
    q, v = (t.flatten(2).transpose(1, 2) for t in (q, v))  # (S, N, D)
    s = torch.sigmoid(mixer.alpha * (F.normalize(c, dim=-1) @ F.normalize(q, dim=-1).transpose(1, 2)) + mixer.beta)
    hard = torch.zeros_like(s).scatter_(1, s.argmax(1, keepdim=True), 1.0)
    s = s * hard
    entry = hard if mixer.unweighted else s
    total = (entry if mixer.denominator == "weights" else hard).sum(2, keepdim=True)
    g = ((v[:, None] * entry[..., None]).sum(2) + cv) / (total + 1)
    o = (g[:, :, None] * s[..., None]).sum(1)  # (S, N, D)
    o = o.reshape(batch * mixer.heads, per_side, per_side, h, w, mixer.head_dim).permute(0, 5, 1, 3, 2, 4)
    o = o.reshape(batch, mixer.heads * mixer.head_dim, height, width)
    return F.conv2d(o, mixer.proj.weight[..., None, None], mixer.proj.bias)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("head_dim", [3, 8])
@pytest.mark.parametrize("per_side, centers", [(1, 2), (2, 2), (4, 1), (2, 3), (1, 5)])
def test_is_the_released_arithmetic(per_side, centers, head_dim, rule, reference, sparse):
    mixer = mixer_of(head_dim, **rule, reference=reference)
    x = torch.randn(2, 6, 8, 12, dtype=torch.float64)
    points = PointSet.from_images(x)
    points = points.as_sparse() if sparse else points
    plan = plan_of(points, per_side, centers)
    out = points.with_feat(plan.from_window_order(mixer(plan.to_window_order(points.feat), plan))).to_image()
    torch.testing.assert_close(out, released(mixer, x, per_side, centers))


@pytest.mark.parametrize("updates", [0, 1, 2])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("head_dim", [3, 8])
def test_reference_form_on_ragged_sets(head_dim, rule, updates, ragged):
    kwargs = dict(head_dim=head_dim, **rule, center_updates=updates)
    fast, reference = (mixer_of(**kwargs, reference=p) for p in (False, True))
    points = ragged.with_feat(torch.randn(len(ragged.feat), 6, dtype=torch.float64))
    plan = plan_of(points, 3, 2)
    probe, results = torch.randn(len(points.feat), 6, dtype=torch.float64), []
    for mixer in (fast, reference):
        out = mixer(points.feat, plan)
        (out * probe).sum().backward()
        results.append([out, *(p.grad for p in mixer.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_form():
    points = PointSet.from_images(torch.randn(1, 6, 8, 8, dtype=torch.float64))
    four, nine = (plan_of(points, 1, side) for side in (2, 3))
    assert mixer_of(8).form(points.feat, four) is Form.PACKED_KERNEL
    with use_backend("torch"):
        assert mixer_of(8).form(points.feat, four) is Form.AT_CENTERS
    assert mixer_of(3).form(points.feat, nine) is mixer_of(8, center_updates=1).form(points.feat, four) is Form.PRODUCTS
    assert mixer_of(8, reference=True).form(points.feat, four) is Form.REFERENCE


def test_center_updates_change_the_output(ragged):
    points = ragged.with_feat(torch.randn(len(ragged.feat), 6, dtype=torch.float64))
    plan = plan_of(points, 1, 2)
    outs = [mixer_of(center_updates=n)(points.feat, plan) for n in range(3)]
    assert not torch.allclose(outs[0], outs[1]) and not torch.allclose(outs[1], outs[2])


@pytest.mark.parametrize("updates", [0, 2])
@pytest.mark.parametrize("kind", ["even", "uneven", "ragged"])
@pytest.mark.parametrize("head_dim", [3, 8])
def test_assignment_rebuilds_the_output(head_dim, kind, updates, ragged):
    """Sum the points by the centers that `assignment` names, with its weights: that is what the mixer gave back."""
    mixer = mixer_of(head_dim, center_updates=updates)
    points = ragged
    if kind != "ragged":
        points = PointSet.from_images(torch.randn(2, 3, *((8, 8) if kind == "even" else (7, 9)), dtype=torch.float64))
    points = points.with_feat(torch.randn(len(points.feat), 6, dtype=torch.float64))
    plan = plan_of(points, 2, 2)
    x = plan.to_window_order(points.feat)
    center, weight = mixer.assignment(x, plan)  # (N, E)
    v = mixer.qv(x)[:, 2 * head_dim :].view(-1, 2, head_dim)
    top = mixer.qv(plan.pool_centers(plan.window_partition(x)))[..., 2 * head_dim :].reshape(
        -1, 2, head_dim
    )  # (K, E, D)
    bottom = torch.ones(len(top), 2, dtype=torch.float64)
    for e in range(2):
        top[:, e] = top[:, e].index_add(0, center[:, e], weight[:, e, None] * v[:, e])
        bottom[:, e] = bottom[:, e].index_add(0, center[:, e], weight[:, e])
    g = top / bottom[..., None]
    o = torch.stack([weight[:, e, None] * g[center[:, e], e] for e in range(2)], dim=1)
    torch.testing.assert_close(mixer.proj(o.flatten(1)), mixer(x, plan))


def test_a_single_point_hears_itself_and_its_center():
    mixer = mixer_of()
    points = PointSet.from_images(torch.randn(1, 6, 1, 1, dtype=torch.float64))
    plan = plan_of(points, 4, 2)
    v = mixer.qv(points.feat)[:, 6:]
    weight = torch.sigmoid(mixer.alpha + mixer.beta)  # its center is itself: the cosine is one
    torch.testing.assert_close(mixer(points.feat, plan), mixer.proj(weight * v))  # (v + s v) / (1 + s) = v


def test_start_and_size():
    mixer = ContextCluster(196, heads=8, head_dim=24)
    assert mixer.alpha.item() == 1 and mixer.beta.item() == 0
    assert sum(p.numel() for p in mixer.parameters()) == 3 * 196 * 8 * 24 + 2 * 8 * 24 + 196 + 2


def test_unknown_denominator():
    with pytest.raises(ValueError, match="denominator must be one of .*weights.*count.*, got 'none'"):
        ContextCluster(6, heads=2, head_dim=3, denominator="none")
