"""The mixer's settings: biases by offsets, sizes and starts, learned curvature, and what is refused."""

from __future__ import annotations

import pytest
import torch

from pointmix import PointSet
from pointmix.layouts.plan import with_relative_pos
from pointmix.nn.mixers.hierarchical import ClusterMixer
from tests.nn.mixers.test_hierarchical import F64, mixer_of, plan_of, run


def test_offsets_give_a_bias_on_any_layout(ragged):
    """The small network of a point's offset from a center takes the place of a table; moving a set changes nothing."""
    mixer = mixer_of(tables=False, relative_pos_dims=2)
    for points in (ragged, ragged.as_cloud()):
        points = points.with_feat(torch.randn(len(points.feat), 6, generator=torch.Generator().manual_seed(0)).double())
        plan = with_relative_pos(plan_of(points, 2, 2, global_side=2), points.pos)
        bias = mixer.bias(plan)
        rows = plan.window_partition(plan.to_window_order(points.pos))
        window = torch.arange(len(rows)) if plan.row_window is None else plan.row_window
        for r in (0, len(rows) - 1):
            for m, center in enumerate(plan.pool_centers(rows)[window[r]]):
                torch.testing.assert_close(bias[r, m].T, mixer.offsets(rows[r] - center))
        out = mixer(plan.to_window_order(points.feat), plan)
        moved = with_relative_pos(plan_of(points, 2, 2, global_side=2), points.pos + 3)
        torch.testing.assert_close(mixer(moved.to_window_order(points.feat), moved), out)
        out.square().sum().backward()
        assert all((p.grad != 0).any() for p in mixer.offsets.parameters())
        mixer.zero_grad()


def test_offsets_and_tables_add_up():
    mixer = mixer_of(relative_pos_dims=2)
    points = PointSet.from_images(torch.randn(2, 6, 9, 7, **F64))
    for p in (points, points.as_sparse()):
        plan = with_relative_pos(plan_of(p, 2, 2, global_side=2), p.pos)
        both, moved = mixer.bias(plan), mixer.offsets(plan.relative_pos).movedim(-1, 2)
        table = plan.table_lookup.read(mixer.bias_patch)
        torch.testing.assert_close(both, moved + table.repeat(len(moved) // len(table), 1, 1, 1))


def test_start_and_size():
    mixer = ClusterMixer(32, heads=4, head_dim=24, centers=16, table_size=56, global_centers=16, upper_table_size=7)
    assert mixer.alpha_patch.item() == mixer.alpha_window.item() == 1
    assert not mixer.bias_patch.any() and not mixer.bias_window.any()
    count = 2 * (32 * 96 + 96) + 2 * 96 * 32 + 32 + 2 + 4 * 16 * 56**2 + 4 * 16 * 49
    assert sum(p.numel() for p in mixer.parameters()) == count
    soft = ClusterMixer(32, heads=4, head_dim=24, centers=16, global_centers=4, alpha="softplus")
    assert soft.scale(soft.alpha_patch).item() == soft.scale(soft.alpha_window).item() == pytest.approx(1, abs=1e-6)


def test_curvature_is_learned_where_something_bends():
    for kwargs in (
        dict(geometry="euclidean", upper_geometry="euclidean"),
        dict(geometry="euclidean", global_side=None),
    ):
        assert mixer_of(**kwargs, learn_curvature=True).curvature.log_kappa is None
    mixer = mixer_of(learn_curvature=True, curvature=2.0)
    points = PointSet.from_images(torch.randn(1, 6, 8, 8, **F64))
    run(mixer, points, per_side=2, centers=2, global_side=2).square().sum().backward()
    assert mixer.curvature().item() == pytest.approx(2) and mixer.curvature.log_kappa.grad != 0


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(geometry="round"), "geometry must be one of .*euclidean.*hyperbolic.*, got 'round'"),
        (dict(upper_geometry=None), "upper_geometry must be one of .*, got None"),
        (dict(expmap="up"), "expmap must be one of .*proper.*released.*, got 'up'"),
        (dict(alpha="fixed"), "alpha must be one of .*free.*softplus.*, got 'fixed'"),
        (dict(curvature=0.0), "must be above 0, got 0.0"),
    ],
)
def test_bad_settings_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ClusterMixer(6, heads=2, head_dim=3, centers=4, **kwargs)
