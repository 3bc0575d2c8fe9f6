"""Mixers whose kernel takes windows as stretches of the points, against their reference forms in rows; float32, so that
this is what runs. On the CPU the kernel is in Triton's interpreter, so all is small."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from pointmix import PointSet
from pointmix.layouts.cloud import Cloud
from pointmix.layouts.plan import with_relative_pos
from pointmix.nn.mixers.context import ContextCluster
from pointmix.nn.mixers.hierarchical import ClusterMixer
from pointmix.nn.norm import SetIndex
from pointmix.ops import use_backend

pytest.importorskip("triton", reason="triton is not installed")
pytest.importorskip("pointmix.ops.clustering.triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HARD = {"weights": {}, "unweighted": dict(unweighted=True)}
SOFT = {
    "cosine": dict(geometry="euclidean"),
    "distance and two levels": dict(geometry="hyperbolic", learn_curvature=True, global_centers=4),
    "released, by offsets": dict(geometry="hyperbolic", expmap="released", relative_pos_dims=2),
    "table, two levels, norm": dict(table_size=5, global_centers=4, upper_table_size=2, cat_norm=True),
}
MIXERS = [*HARD, *SOFT]


@pytest.fixture
def packed(monkeypatch):
    """Of each run of the kernel whether windows came as stretches; forward only."""
    from pointmix.ops.clustering.triton import operators as ops

    seen, run = [], ops.run
    monkeypatch.setattr(ops, "run", lambda *a, **rules: seen.append(a[8] is not None) or run(*a, **rules))
    return seen


def points_of(kind: str) -> PointSet:
    """A crowded set, one of a few points, a single point: windows of one row, of several, and of one point."""
    if kind == "cloud":
        pos = [torch.cat([torch.randn(70, 2) / 20, torch.randn(9, 2)]), torch.randn(2, 2), torch.randn(1, 2)]
        counts = [len(p) for p in pos]
        points = PointSet(torch.cat(pos), torch.randn(sum(counts), 6), torch.tensor([0, *counts]).cumsum(0), Cloud())
    else:
        masks = [torch.zeros(10, 8), torch.zeros(6, 8), torch.zeros(4, 4)]
        masks[0][:5, :4], masks[0][0, 7], masks[1][1], masks[2][3, 0] = 1, 1, 1, 1
        points = PointSet.from_images([torch.randn(6, *m.shape) for m in masks], masks)
    return points.to(DEVICE)


def mixer_of(name: str, points: PointSet, heads: int = 2, head_dim: int = 5, **kwargs):
    torch.manual_seed(1)
    if name in HARD:
        mixer = ContextCluster(6, heads=heads, head_dim=head_dim, **HARD[name], **kwargs)
    else:
        mixer = ClusterMixer(6, heads=heads, head_dim=head_dim, centers=4, **SOFT[name], **kwargs)
    for parameter in mixer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return mixer.to(DEVICE)


def plan_of(name: str, points: PointSet):
    soft = SOFT.get(name, {})
    options = {}
    if soft:
        sides = dict(global_centers_per_side=2 if "global_centers" in soft else None)
        options = dict(pad="needed", table_size=soft.get("table_size"), **sides)
    plan = points.layout.plan(points.pos, points.ptr, 2, 2, **options)
    return with_relative_pos(plan, points.pos) if "relative_pos_dims" in soft else plan


def found(mixer, x, plan, sets, probe) -> list[torch.Tensor]:
    """The outcome and all gradients."""
    x = x.clone().requires_grad_()
    out = mixer(x, plan, sets)
    wanted = [x, *mixer.parameters()]
    gradients = torch.autograd.grad((out * probe).sum(), wanted, allow_unused=True)
    return [out.detach(), *(g for g in gradients if g is not None)]


@pytest.mark.parametrize("kind, name", [("sparse", n) for n in MIXERS] + [("cloud", MIXERS[0]), ("cloud", MIXERS[-2])])
def test_equals_the_reference_form(kind, name, packed):
    points = points_of(kind)
    plan, sets, probe = plan_of(name, points), SetIndex.of(points), torch.randn_like(points.feat)
    assert plan.row_window is not None and 1 in plan.packed.ptr.diff()
    x = plan.to_window_order(points.feat)
    expected = found(mixer_of(name, points, reference=True), x, plan, sets, probe)
    with use_backend("triton"):
        outcome = found(mixer_of(name, points), x, plan, sets, probe)
    assert len(outcome) == len(expected) and packed.count(True) == 1
    for one, other in zip(outcome, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * max(1, float(other.abs().max())))


@pytest.mark.filterwarnings("ignore:invalid value")  # NumPy's, in the interpreter
@pytest.mark.parametrize("name", ["weights", "distance and two levels"])
def test_what_is_not_a_number_stays_in_its_set(name, packed):
    points = points_of("cloud")
    mixer, plan, sets = mixer_of(name, points, heads=1), plan_of(name, points), SetIndex.of(points)
    feat, probe = points.feat.clone(), torch.randn_like(points.feat)
    feat[80, 2] = torch.nan  # in the second set, which begins at 79
    with use_backend("triton"):
        outcomes = [found(mixer, plan.to_window_order(f), plan, sets, probe)[:2] for f in (points.feat, feat)]
    assert any(packed)
    for sound, broken in zip(*([plan.from_window_order(t) for t in o] for o in outcomes), strict=True):
        assert broken[79:81].isnan().any()
        assert torch.equal(sound[:79], broken[:79]) and torch.equal(sound[81:], broken[81:])


def test_a_set_comes_out_the_same_in_any_batch():
    points = points_of("cloud")
    mixer, outs = mixer_of("weights", points), []
    for some in (points, PointSet(points.pos[79:81], points.feat[79:81], points.ptr[1:3] - 79, points.layout)):
        plan = plan_of("weights", some)
        with use_backend("triton"):
            outs.append(plan.from_window_order(mixer(plan.to_window_order(some.feat), plan)))
    torch.testing.assert_close(outs[0][79:81], outs[1], rtol=1e-5, atol=1e-6)


def test_rows_where_windows_do_not_fit_or_points_have_copies(packed):
    points = points_of("cloud")
    plan = plan_of("weights", points)
    wide = mixer_of("weights", points, head_dim=129)  # 16 x 256 numbers of 4 bytes are too many
    moving = ContextCluster(6, heads=2, head_dim=5, center_updates=1).to(DEVICE)  # moves its centers row by row
    with use_backend("triton"):
        for mixer in (wide, moving):
            mixer(plan.to_window_order(points.feat), plan)
    image = PointSet.from_images(torch.randn(1, 6, 5, 5)).as_sparse().to(DEVICE)  # reflected to 6 x 6
    plan = plan_of("cosine", image)
    assert plan.packed is None
    outs = []
    for backend in ("torch", "triton"):
        with use_backend(backend):
            outs.append(mixer_of("cosine", image)(plan.to_window_order(image.feat), plan))
    torch.testing.assert_close(*outs)
    assert not any(packed)


def test_compiled_in_one_graph(packed):
    points = points_of("sparse")
    mixer, plan = mixer_of("weights", points, heads=1), plan_of("weights", points)
    x = plan.to_window_order(points.feat)
    with use_backend("triton"):
        compiled = torch.compile(lambda x: mixer(x, plan), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), mixer(x, plan))
    assert packed.count(True) == 2
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["weights", "cosine"])
def test_the_kernel_never_drops_forward_mode_derivatives(name, packed):
    """The form without it is taken."""
    points = points_of("lattice")
    mixer, plan, sets = mixer_of(name, points, head_dim=2), plan_of(name, points), SetIndex.of(points)
    x = plan.to_window_order(points.feat)
    with use_backend("triton"), torch.no_grad():
        mixer(x, plan, sets)
        assert packed and packed[0]
        packed.clear()
        tangents = []
        for mixer.reference in (False, True):
            with forward_ad.dual_level():
                out = mixer(forward_ad.make_dual(x, torch.ones_like(x)), plan, sets)
                tangents.append(forward_ad.unpack_dual(out).tangent)
    assert not packed
    torch.testing.assert_close(*tangents, rtol=1e-4, atol=1e-4)
