from __future__ import annotations

import pytest
import torch

import pointmix
from pointmix import PointSet

DIMS = (8, 12, 16, 20)
SMALL = dict(depths=(2, 1, 3, 1), dims=DIMS, heads=2, head_dim=8, num_classes=5, layer_scale=1.0)


def model_of(**kwargs) -> torch.nn.Module:
    return pointmix.create_model("coc_tiny", **SMALL | kwargs).eval()


def masked(batch: int = 2, height: int = 40, width: int = 56) -> PointSet:
    masks = torch.rand(batch, height, width) < 0.3
    masks[:, 0, 0] = True
    return PointSet.from_images(torch.rand(batch, 3, height, width), masks)


# ---- forward ----------------------------------------------------------------------------------------------------


def test_images_and_their_points_give_the_same():
    model, images = model_of(), torch.rand(2, 3, 40, 56)
    assert torch.equal(model(images), model(PointSet.from_images(images)))


def test_coord_mode_of_a_tensor_is_the_models():
    model, images = model_of(coord_mode="exclusive"), torch.rand(2, 3, 40, 56)
    assert torch.equal(model(images), model(PointSet.from_images(images, coord_mode="exclusive")))
    assert not torch.allclose(model(images), model(PointSet.from_images(images)), atol=1e-6)


def test_features_then_head_is_forward():
    model = model_of()
    images, points = torch.rand(2, 3, 40, 56), masked()
    features = model.forward_features(images)
    assert features.shape == (2, 20, 2, 2)
    torch.testing.assert_close(model.forward_head(features), model(images))
    features = model.forward_features(points)
    assert isinstance(features, PointSet)
    torch.testing.assert_close(model.forward_head(features), model(points))
    pre = model.forward_head(features, pre_logits=True)
    expected = torch.stack([s.feat.mean(0) for s in features.unbind()])  # each set's own mean
    torch.testing.assert_close(pre, expected)
    torch.testing.assert_close(model.head(pre), model(points))


def test_without_pooling_every_point_has_logits():
    model, pooled = model_of(global_pool=""), model_of()
    pooled.load_state_dict(model.state_dict())
    points, images = masked(), torch.rand(2, 3, 40, 56)
    logits, features = model(points), model.forward_features(points)
    assert logits.num_sets == 2 and torch.equal(logits.ptr, features.ptr) and torch.equal(logits.pos, features.pos)
    torch.testing.assert_close(logits.feat, model.head(features.feat))
    torch.testing.assert_close(torch.stack([s.feat.mean(0) for s in logits.unbind()]), pooled(points))
    cloud = model(points.as_cloud())
    assert isinstance(cloud, PointSet) and cloud.num_sets == 2 and cloud.feat.shape[1] == 5
    logits = model(images)
    assert logits.shape == (2, 5, 2, 2)
    torch.testing.assert_close(logits.mean((2, 3)), pooled(images))
    features = model.forward_features(images)
    torch.testing.assert_close(model.forward_head(features), logits)
    assert torch.equal(model.forward_head(features, pre_logits=True), features)
    model.reset_classifier(0)
    assert torch.equal(model(images), features)


def test_dropout_before_the_classifier():
    model = model_of(drop_rate=0.5)
    images = torch.rand(2, 3, 40, 56)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_drop_path_rises_linearly():
    model = model_of(drop_path_rate=0.3)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.3, 7))


def test_a_pyramid_gives_four_normalized_maps():
    model, images = model_of(pyramid=True), torch.rand(2, 3, 64, 96)
    maps = model(images)
    assert [tuple(m.shape) for m in maps] == [
        (2, d, 64 // s, 96 // s) for d, s in zip(DIMS, (4, 8, 16, 32), strict=True)
    ]
    for m in maps:  # the norms start as the identity
        torch.testing.assert_close(m.mean((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(m.var((1, 2, 3), correction=0), torch.ones(2), atol=1e-3, rtol=0)
    points = masked()
    assert all(isinstance(p, PointSet) for p in model(points))
    for a, b in zip(model(PointSet.from_images(images)), maps, strict=True):
        torch.testing.assert_close(a.to_image(), b)


# ---- timm's contract --------------------------------------------------------------------------------------------


def test_forward_intermediates():
    model, images = model_of(), torch.rand(2, 3, 64, 96)
    final, maps = model.forward_intermediates(images)
    assert [tuple(m.shape) for m in maps] == [
        (2, d, 64 // s, 96 // s) for d, s in zip(DIMS, (4, 8, 16, 32), strict=True)
    ]
    torch.testing.assert_close(final, model.forward_features(images))
    assert not torch.allclose(final, maps[-1])  # the last map is not normalized
    normed = model.forward_intermediates(images, norm=True, intermediates_only=True)
    torch.testing.assert_close(normed[-1], final)
    torch.testing.assert_close(normed[:-1], maps[:-1])


@pytest.mark.parametrize(
    "indices, stages", [(1, [3]), (2, [2, 3]), ([0, 2], [0, 2]), ([-1], [3]), (None, [0, 1, 2, 3])]
)
@pytest.mark.parametrize("stop_early", [False, True])
def test_intermediates_by_index(indices, stages, stop_early):
    model, images = model_of(), torch.rand(2, 3, 32, 32)
    everything = model.forward_intermediates(images, intermediates_only=True)
    final, chosen = model.forward_intermediates(images, indices, stop_early=stop_early)
    torch.testing.assert_close(chosen, [everything[i] for i in stages])
    if stages[-1] == 3 or not stop_early:
        torch.testing.assert_close(final, model.forward_features(images))
    else:
        torch.testing.assert_close(final, everything[stages[-1]])


def test_stop_early_runs_nothing_more():
    model = model_of()
    model.stages[2].register_forward_hook(lambda *_: pytest.fail("the third stage ran"))
    model.forward_intermediates(torch.rand(1, 3, 32, 32), [0, 1], stop_early=True)
    model.forward_intermediates(torch.rand(1, 3, 32, 32), [1], intermediates_only=True)


def test_intermediates_of_points_are_points():
    model, points = model_of(), masked()
    found = model.forward_intermediates(points, intermediates_only=True)
    assert [p.feat.shape[1] for p in found] == list(DIMS) and all(p.num_sets == 2 for p in found)


def test_bad_intermediates():
    with pytest.raises(ValueError, match="output_fmt must be 'NCHW', got 'NLC'"):
        model_of().forward_intermediates(torch.rand(1, 3, 32, 32), output_fmt="NLC")
    with pytest.raises(Exception, match="out of bounds|out of range|4"):
        model_of().forward_intermediates(torch.rand(1, 3, 32, 32), [4])


def test_pruning_leaves_the_first_stages():
    model, images = model_of(), torch.rand(2, 3, 64, 96)
    maps = model.forward_intermediates(images, intermediates_only=True)
    assert model.prune_intermediate_layers([0, 1], prune_norm=True) == [0, 1]
    assert len(model.stages) == 2 and isinstance(model.head, torch.nn.Identity)
    torch.testing.assert_close(model.forward_intermediates(images, [0, 1], intermediates_only=True), maps[:2])


@pytest.mark.parametrize("kwargs", [dict(prune_norm=True), dict(prune_norm=False)])
@pytest.mark.parametrize("pyramid", [False, True])
@pytest.mark.parametrize("stages", [2, 4])
def test_a_pruned_model_runs(pyramid, stages, kwargs):
    model, images = model_of(pyramid=pyramid), torch.rand(2, 3, 64, 96)
    maps = model(images) if pyramid else model.forward_intermediates(images, intermediates_only=True)
    final = model.forward_features(images)
    model.prune_intermediate_layers(list(range(stages)), **kwargs)
    out = model(images) if pyramid else model.forward_features(images)
    normed = not pyramid and stages == 4 and not kwargs["prune_norm"]
    torch.testing.assert_close(out, maps[:stages] if pyramid else final if normed else maps[stages - 1])


def test_positions_of_other_dimensions_are_refused():
    points = PointSet.from_points(torch.rand(9, 3), torch.rand(9, 3))
    with pytest.raises(ValueError, match=r"positions have 3 dimensions, the model takes 2 \(coord_dims\)"):
        model_of()(points)


def test_features_only():
    kwargs = {k: v for k, v in SMALL.items() if k != "num_classes"}
    model = pointmix.create_model("coc_tiny", **kwargs, features_only=True, out_indices=(1, 3))
    assert model.feature_info.channels() == [12, 20] and model.feature_info.reduction() == [8, 32]
    assert [tuple(m.shape) for m in model(torch.rand(2, 3, 64, 96))] == [(2, 12, 8, 12), (2, 20, 2, 3)]


def test_reset_classifier():
    model, images = model_of().double(), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    model.reset_classifier(7)
    assert model.num_classes == 7 and model(images).shape == (2, 7) and model.get_classifier() is model.head
    model.reset_classifier(0)
    torch.testing.assert_close(model(images), model.forward_features(images).mean((2, 3)))
    model.reset_classifier(3, global_pool="")
    assert model(torch.rand(2, 3, 64, 96, dtype=torch.float64)).shape == (2, 3, 2, 3)  # every point has logits
    with pytest.raises(ValueError, match="global_pool must be 'avg' or '', got 'max'"):
        model.reset_classifier(3, global_pool="max")


def test_a_pyramid_has_no_classifier():
    model = model_of(pyramid=True)
    with pytest.raises(ValueError, match="a pyramid returns maps and has no classifier, got num_classes 3"):
        model.reset_classifier(3)
    model.reset_classifier(0)
    assert len(model(torch.rand(1, 3, 32, 32))) == 4


def test_start_of_the_classifier():
    """Truncated normal, also of a classifier that is put in later."""
    model = pointmix.create_model("coc_tiny", depths=(1, 1, 1, 1))
    for classes in (None, 500):
        if classes:
            model.reset_classifier(classes)
        assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.05) and (model.head.bias == 0).all()


def test_checkpointing_recomputes_the_blocks():
    model = model_of().train()
    ran = []
    model.stages[0].blocks[0].register_forward_pre_hook(lambda *_: ran.append(1))
    for enable, times in ((False, 1), (True, 2)):
        ran.clear()
        model.set_grad_checkpointing(enable)
        model(torch.rand(1, 3, 32, 32)).sum().backward()
        assert len(ran) == times
    with torch.no_grad():
        ran.clear()
        model.eval()(torch.rand(1, 3, 32, 32))
        assert len(ran) == 1


def test_groups_of_layers_cover_all_parameters():
    from timm.models import group_parameters

    model = model_of()
    groups = group_parameters(model, model.group_matcher())
    assert sorted(n for names in groups.values() for n in names) == sorted(n for n, _ in model.named_parameters())
    layer = {name: i for i, names in groups.items() for name in names}
    assert layer["stages.0.reducer.weight"] == 0
    assert (
        layer["stages.0.blocks.1.mlp.fc1.bias"]
        < layer["stages.1.reducer.weight"]
        < layer["stages.2.blocks.0.norm1.bias"]
    )
    assert layer["head.weight"] == max(groups)


def test_no_weight_decay_names_parameters():
    model = model_of()
    assert model.no_weight_decay() <= {n for n, _ in model.named_parameters()}


# ---- explain ----------------------------------------------------------------------------------------------------

INPUTS = {
    "even": lambda: torch.rand(2, 3, 64, 64),
    "uneven": lambda: torch.rand(2, 3, 37, 53),
    "masked": lambda: masked(),
    "ragged": lambda: PointSet.from_images([torch.rand(3, 40, 24), torch.rand(3, 9, 9)]),
    "one pixel": lambda: torch.rand(1, 3, 1, 1),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("updates", [0, 1])
def test_explain_names_what_the_mixers_used(kind, updates):
    """From the named centers and weights alone, and the values, every mixer's output can be put together again."""
    model, x = model_of(center_updates=updates), INPUTS[kind]()
    calls = {}
    for name, module in model.named_modules():
        if name.endswith(".mixer"):
            module.register_forward_hook(lambda m, inputs, out, name=name: calls.update({name: (m, *inputs, out)}))
    with torch.no_grad():
        model(x)
        used = dict(calls)
        found = model.explain(x)
    assert [a.name for a in found] == [f"stages.{i}.blocks.{j}" for i, n in enumerate((2, 1, 3, 1)) for j in range(n)]
    for a in found:
        mixer, normed, plan, _, out = used[f"{a.name}.mixer"]
        number, centers = len(a.points.feat), model.stages[int(a.name.split(".")[1])].centers_per_side ** 2
        assert a.center.shape == a.weight.shape == (number, 2) and a.window.shape == (number,)
        assert a.center.min() >= 0 and a.center.max() < len(a.center_pos) and len(a.center_pos) % centers == 0
        assert (a.weight > 0).all() and (a.weight < 1).all()
        assert torch.equal(a.center // centers, a.window[:, None].expand(-1, 2))  # a point's center is of its window
        if plan.center_valid is not None:
            assert plan.center_valid.flatten()[a.center].all()
        v = plan.from_window_order(mixer.qv(normed)[:, 16:]).view(-1, 2, 8)
        top = mixer.qv(plan.pool_centers(plan.window_partition(normed)))[..., 16:].reshape(-1, 2, 8).clone()
        bottom = torch.ones(len(top), 2)
        for e in range(2):
            top[:, e].index_add_(0, a.center[:, e], a.weight[:, e, None] * v[:, e])
            bottom[:, e].index_add_(0, a.center[:, e], a.weight[:, e])
        g = top / bottom[..., None]
        o = torch.stack([a.weight[:, e, None] * g[a.center[:, e], e] for e in range(2)], dim=1)
        torch.testing.assert_close(mixer.proj(o.flatten(1)), plan.from_window_order(out), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", INPUTS)
def test_explained_windows_and_positions(kind):
    model, x = model_of(), INPUTS[kind]()
    for a in model.explain(x):
        cell = a.points.as_sparse().layout.cell
        size = a.points.as_sparse().layout.size[a.points.batch]
        side = size.clamp(max=model.stages[int(a.name.split(".")[1])].windows_per_side)
        # windows are numbered in the order of (set, row, column): equal windows have equal numbers and no others
        own = torch.cat([a.points.batch[:, None], cell * side // size], dim=1)
        _, number = torch.unique(own, dim=0, return_inverse=True)
        assert torch.equal(number, a.window)
        box = [(a.points.pos[a.window == w].amin(0), a.points.pos[a.window == w].amax(0)) for w in a.window.unique()]
        chosen = a.center.unique()
        for k, (low, high) in zip(chosen, [box[a.window[(a.center == k).any(1)][0]] for k in chosen], strict=True):
            assert (a.center_pos[k] >= low - 1e-6).all() and (a.center_pos[k] <= high + 1e-6).all()


def test_explained_points_carry_the_blocks_input():
    model, images = model_of(), torch.rand(2, 3, 64, 64)
    seen = []
    model.stages[0].blocks[0].register_forward_pre_hook(lambda m, inputs: seen.append(inputs))
    found = model.explain(images)
    x, plan, _ = seen[0]
    torch.testing.assert_close(found[0].points.feat, plan.from_window_order(x))
    assert found[0].points.layout.size == (16, 16) and found[3].points.feat.shape == (2 * 4 * 4, 16)


def test_nothing_to_explain_without_clusters():
    assert model_of(cluster=False).explain(torch.rand(1, 3, 32, 32)) == []
