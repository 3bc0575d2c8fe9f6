from __future__ import annotations

import pytest
import torch
from timm.models import load_checkpoint
from timm.optim import create_optimizer_v2

import pointmix
from pointmix import PointSet
from pointmix.layouts.grid import Grid
from pointmix.models.hcformer import checkpoint_filter_fn
from pointmix.nn.norm import SetIndex

TINY = dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), heads=2, head_dim=4, num_classes=5)
F64 = dict(dtype=torch.float64)


def model_of(**kwargs) -> torch.nn.Module:
    """A narrow model in float64 in which every branch matters, with tables that are not zero."""
    torch.manual_seed(1)
    model = pointmix.create_model("hcformer_tiny", **TINY | dict(layer_scale=1.0) | kwargs).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".alpha_" in name:
                p.add_(1)
            elif name.endswith(("bias_patch", "bias_window")):
                p.normal_(std=0.5)
    return model


def ragged(channels: int = 3) -> PointSet:
    sizes = [(64, 48), (37, 53), (9, 70), (1, 1)]
    masks = [torch.rand(size) < 0.4 for size in sizes]
    for mask in masks:
        mask[mask.shape[0] // 2, mask.shape[1] // 2] = True
    return PointSet.from_images([torch.randn(channels, *size, **F64) for size in sizes], masks)


# ---- sizes ----------------------------------------------------------------------------------------------------------

SWITCHES = {
    "default": {},
    "no tables": dict(rel_pos=False),
    "no hierarchy": dict(hierarchy="none"),
    "shift": dict(hierarchy="shift"),
    "neither": dict(hierarchy="none", rel_pos=False),
    "coords": dict(coords=True),
    "cat_norm": dict(cat_norm=True),
    "pyramid": dict(pyramid=True),
}
PARAMETERS = {
    "hcformer_nano": (5_325_650, 4_413_026, 5_150_232, 5_150_232, 4_250_200, 5_326_674, 5_330_258, 5_101_234),
    "hcformer_tiny": (6_952_690, 6_040_066, 6_695_864, 6_695_864, 5_795_832, 6_953_714, 6_959_602, 6_632_274),
    "hcformer_small": (16_108_270, 15_195_646, 15_554_996, 15_554_996, 14_654_964, 16_110_318, 16_117_486, 15_596_294),
    "hcformer_medium": (33_648_356, 30_910_484, 31_988_544, 31_988_544, 29_288_448, 33_650_404, 33_676_004, 33_136_380),
}


def count(name: str, **kwargs) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in pointmix.create_model(name, **kwargs).parameters())


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("name", PARAMETERS)
def test_exact_parameters(name, switch):
    assert count(name, **SWITCHES[switch]) == dict(zip(SWITCHES, PARAMETERS[name], strict=True))[switch]


@pytest.mark.parametrize(
    "kwargs, parameters",
    [
        (dict(global_centers_per_side=(3, 3, 1, None)), 6_947_202),
        (dict(global_centers_per_side=(5, 5, 1, None)), 6_959_746),
        (dict(global_centers_per_side=(None,) * 4), 6_695_864),
        (dict(geometry_patch="hyperbolic"), 6_952_690),
        (dict(geometry_window="euclidean"), 6_952_690),
        (dict(curvature=10.0, expmap="released", alpha="softplus", pad="always"), 6_952_690),
        (dict(learn_curvature=True), 6_952_690 + 10),  # of the blocks with a level above
        (dict(learn_curvature=True, geometry_patch="hyperbolic"), 6_952_690 + 12),
        (dict(learn_curvature=True, geometry_window="euclidean"), 6_952_690),
        (dict(rel_pos="table"), 6_952_690),
        (dict(rel_pos="offset"), 6_040_066 + 48 * 12 + 16 * (4 * 4 + 8 * 8)),
        (dict(rel_pos="offset", coord_dims=3, coords=True), 6_040_066 + 64 * 12 + 16 * (4 * 4 + 8 * 8) + 3 * 16 * 32),
        (dict(num_classes=10), 6_952_690 - 321 * 990),
    ],
    ids=str,
)
def test_parameters_of_variations(kwargs, parameters):
    assert count("hcformer_tiny", **kwargs) == parameters


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("hcformer_nano", (229_058, 98_754, 487_130, 496_641)),
        ("hcformer_tiny", (233_218, 107_010, 537_434, 1_014_017)),
        ("hcformer_small", (303_426, 345_666, 1_228_074, 2_503_297)),
        ("hcformer_medium", (421_858, 386_402, 1_430_590, 2_703_297)),
    ],
)
def test_parameters_of_blocks(name, parameters):
    with torch.device("meta"):
        model = pointmix.create_model(name)
    assert tuple(sum(p.numel() for p in stage.blocks[0].parameters()) for stage in model.stages) == parameters


def test_settings_as_yaml_gives_them():
    """Lists for tuples, null for no level above, truth values for tables."""
    model = pointmix.create_model(
        "hcformer_tiny", depths=[1, 1], dims=[8, 12], mlp_ratios=[2, 2], windows_per_side=[2, 1],
        centers_per_side=[2, 2], heads=[2, 4], head_dim=[4, 4], global_centers_per_side=[2, None], table_size=[8, 4],
        rel_pos=True, hierarchy="window", num_classes=5,
    )  # fmt: skip
    mixers = [stage.blocks[0].mixer for stage in model.stages]
    assert [m.heads for m in mixers] == [2, 4] and [m.bias_patch.shape[2] for m in mixers] == [8, 4]
    assert mixers[0].bias_window.shape == (2, 4, 2, 2) and mixers[1].alpha_window is None
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)


# ---- switches -------------------------------------------------------------------------------------------------------


def test_switches_reach_the_arithmetic():
    """Each changes the logits; the reference form does not."""
    images = torch.rand(2, 3, 72, 88, **F64)
    base = TINY | dict(depths=(2, 1, 1, 1), layer_scale=1.0, windows_per_side=(2, 2, 1, 1))
    logits = {}
    for name, flags in {
        "default": {},
        "reference": dict(reference=True),
        "shift": dict(hierarchy="shift"),
        "none": dict(hierarchy="none"),
        "patch": dict(geometry_patch="hyperbolic"),
        "window": dict(geometry_window="euclidean"),
        "no tables": dict(rel_pos=False),
        "offset": dict(rel_pos="offset"),
        "curvature": dict(curvature=10.0),
        "three centers": dict(global_centers_per_side=(3, 3, 1, None)),
        "fewer levels": dict(global_centers_per_side=(None, 4, 1, None)),
        "always": dict(pad="always"),
        "coords": dict(coords=True),
        "cat_norm": dict(cat_norm=True),
        "released": dict(expmap="released"),
        "softplus": dict(alpha="softplus"),
    }.items():
        model = pointmix.create_model("hcformer_tiny", **base | flags).double().eval()
        with torch.no_grad():
            for key, p in model.named_parameters():
                kind = sum(map(ord, key))  # the same numbers for the same name
                torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(kind))
            logits[name] = model(images)
    torch.testing.assert_close(logits.pop("reference"), logits["default"])
    default = logits.pop("default")
    for name, other in logits.items():
        assert (other - default).abs().max() > 1e-8, name


def test_every_second_block_rolls_its_windows():
    """As the same block on rolled features; where one window is the whole lattice nothing is rolled."""
    model = model_of(hierarchy="shift", rel_pos=False, depths=(3, 1, 2, 1))
    assert [stage.shift for stage in model.stages] == [True, True, False, False]
    stage, x = model.stages[0], torch.randn(2, 8, 14, 28, **F64)
    points = PointSet.from_images(x)
    (reference, rolled), sets = stage.plans(points), SetIndex.of(points)
    block = stage.blocks[1]

    def run(plan, x: torch.Tensor) -> torch.Tensor:
        features = PointSet.from_images(x).feat
        return points.with_feat(plan.from_window_order(block(plan.to_window_order(features), plan, sets))).to_image()

    expected = torch.roll(run(reference, torch.roll(x, (-1, -2), (2, 3))), (1, 2), (2, 3))  # windows of 2x4
    torch.testing.assert_close(run(rolled, x), expected)

    used = []
    for block in stage.blocks:
        block.forward = lambda x, plan, sets: (used.append(plan), x)[1]
    stage.reducer.forward = lambda points: points
    assert torch.equal(stage(points).feat, points.feat)
    rows = [plan.window_partition(plan.to_window_order(points.feat)) for plan in (reference, *used)]
    assert [torch.equal(other, rows[0]) for other in rows[1:]] == [True, False, True]


CLOUDS = {
    "table": {},
    "offset": dict(rel_pos="offset"),
    "shift": dict(hierarchy="shift", rel_pos="offset", depths=(2, 2, 1, 1)),
    "none": dict(hierarchy="none", rel_pos=False),
    "hyperbolic": dict(geometry_patch="hyperbolic", rel_pos="offset", cat_norm=True),
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("switches", CLOUDS)
def test_clouds_whatever_their_order_and_their_mates(switches, dims):
    settings = dict(CLOUDS[switches], coord_dims=dims, coords=True, windows_per_side=(3, 2, 1, 1))
    if switches == "table" and dims == 3:
        with pytest.raises(ValueError, match="clouds cannot read bias tables; give rel_pos 'offset' or false"):
            model_of(**settings)
        return
    model = model_of(**settings)
    sets = [PointSet.from_points(torch.randn(n, dims, **F64), torch.randn(n, 3, **F64)) for n in (300, 1, 90)]
    alone = torch.cat([model(s) for s in sets])
    assert alone.isfinite().all()
    mixed = PointSet.cat([s.subset(torch.randperm(len(s.pos))) for s in sets])
    torch.testing.assert_close(model(mixed), alone, rtol=1e-9, atol=1e-9)
    alone.square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is None if name.endswith(("bias_patch", "bias_window")) else p.grad.isfinite().all(), name


@pytest.mark.parametrize("layout", ["given", "cloud"])
def test_offsets_matter_on_any_layout(layout):
    """Without its last layer the small network says nothing: the model is the one without positions."""
    settings = dict(layout=layout, windows_per_side=(2, 2, 1, 1))
    model, bare = model_of(rel_pos="offset", **settings), model_of(rel_pos=False, **settings)
    images = torch.randn(2, 3, 64, 64, **F64)
    with torch.no_grad():
        before = model(images)
        for name, p in model.named_parameters():
            if name.endswith("offsets.2.weight"):
                p.zero_()
        left = bare.load_state_dict(model.state_dict(), strict=False)
        assert not left.missing_keys and all(".offsets." in key for key in left.unexpected_keys)
        after = model(images)
        torch.testing.assert_close(after, bare(images))
    assert (after - before).abs().max() > 1e-6


# ---- the second geometry --------------------------------------------------------------------------------------------


def test_learned_curvatures_get_a_gradient_and_stay_positive():
    model = model_of(learn_curvature=True, depths=(1, 1, 1, 1))
    curvatures = {name: p for name, p in model.named_parameters() if name.endswith("log_kappa")}
    assert set(curvatures) == {f"stages.{i}.blocks.0.mixer.curvature.log_kappa" for i in range(3)}
    optimizer = torch.optim.SGD(curvatures.values(), lr=1e6)
    images = torch.randn(2, 3, 64, 64, **F64)
    model(images).square().sum().backward()
    found = [p.grad.item() for p in curvatures.values()]
    assert found[0] != 0 and found[1] != 0 and found[2] == 0  # the third has one center, whatever its distance
    optimizer.step()
    kappas = [model.stages[i].blocks[0].mixer.curvature().item() for i in range(3)]
    assert all(0.1 - 1e-9 <= kappa <= 10 + 1e-9 for kappa in kappas) and kappas[2] == pytest.approx(1)
    assert model(images).isfinite().all()


NAMES = list(PARAMETERS)
SHALLOW = {"hcformer_small": (1, 1, 1, 1), "hcformer_medium": (1, 1, 1, 1)}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_no_parameter_is_nan_after_a_step(name, precision, optimizer):
    """One window and one center that coincide, as in the third stage, have no derivative of acosh."""
    settings = dict(layer_scale=1.0, drop_path_rate=0.1, num_classes=10, learn_curvature=True)
    model = pointmix.create_model(name, **settings, depths=SHALLOW.get(name, (2, 2, 6, 2))).train()
    update = create_optimizer_v2(model, opt=optimizer, lr=1e-2, weight_decay=0.05)
    images = torch.randn(2, 3, 32, 32)
    images[1] = 0  # pixels that are all alike too
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        loss = model(images).float().square().mean()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    update.step()
    assert all(p.isfinite().all() for p in model.parameters()) and model(images).isfinite().all()


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [True, False])
def test_weight_decay_of_tables(decay):
    model = pointmix.create_model("hcformer_tiny", **TINY, decay_bias_tables=decay, rel_pos=True, learn_curvature=True)
    groups = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, p in model.named_parameters():
        table = name.endswith((".bias_patch", ".bias_window"))
        assert (id(p) in decayed) == (decay if table else p.ndim > 1), name
    assert len(model.no_weight_decay()) == (0 if decay else 4 + 3)


# ---- input and settings at the edge ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", ["needed", "always"])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (8, 12), (3, 60), (24, 28)], ids=str)
def test_lattices_smaller_than_their_windows(size, pad):
    """Of 7x7 windows those exist for which there is a cell, or a copy of one; both layouts agree."""
    model, images = model_of(pad=pad), torch.randn(2, 3, *size, **F64)
    points = PointSet.from_images(images)
    assert isinstance(points.layout, Grid)
    logits = model(points)
    assert logits.isfinite().all()
    torch.testing.assert_close(model(points.as_sparse()), logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("at", [(0, 0), (31, 31), (63, 63)])
def test_all_windows_but_one_are_empty(at):
    """The set is one point in every stage, whose values come back from both levels; so is its gradient."""
    model, mask = model_of(), torch.zeros(64, 64)
    mask[at] = 1
    image = torch.randn(3, 64, 64, **F64)
    pixel, whole = PointSet.from_image(image, mask), PointSet.from_image(image).as_sparse()
    feat = pixel.feat.requires_grad_()
    logits = model(pixel.with_feat(feat))
    assert logits.isfinite().all() and torch.autograd.grad(logits.square().sum(), feat)[0].isfinite().all()
    together = model(PointSet.cat([whole, pixel, whole]))
    torch.testing.assert_close(together[1:2], logits)
    torch.testing.assert_close(together[[0, 2]], model(whole).expand(2, -1))
    # weights of all centers that exist are alike: neither where the point is nor any scale or table matters
    blank = model_of()
    with torch.no_grad():
        for name, p in blank.named_parameters():
            if ".alpha_" in name or name.endswith(("bias_patch", "bias_window")):
                p.zero_()
    torch.testing.assert_close(blank(pixel), logits)


@pytest.mark.parametrize("switches", [{}, dict(geometry_patch="hyperbolic"), dict(hierarchy="shift")], ids=str)
def test_nan_stays_in_its_set(switches):
    model = model_of(**switches, depths=(2, 1, 1, 1))
    for points in (ragged(), PointSet.from_images(torch.randn(4, 3, 37, 53, **F64))):
        feat = points.feat.clone()
        feat[points.ptr[1]] = float("nan")
        with torch.no_grad():
            clean, dirty = model(points), model(points.with_feat(feat))
        assert dirty[1].isnan().all()
        torch.testing.assert_close(dirty[[0, 2, 3]], clean[[0, 2, 3]], rtol=1e-9, atol=1e-9)


def test_a_checkpoint_with_tables_of_another_size(tmp_path):
    """An error that names them, or on request the same model of lattices of the new size."""
    sides = dict(table_size=(4, 2, 1, 1)), dict(table_size=(16, 8, 4, 2))
    old, new = model_of(**sides[0]), model_of(**sides[1])
    with pytest.raises(RuntimeError, match=r"size mismatch for stages.0.blocks.0.mixer.bias_patch.*\(?2, 16, 4, 4"):
        new.load_state_dict(old.state_dict())
    torch.save(old.state_dict(), tmp_path / "old.pth")
    load_checkpoint(new, str(tmp_path / "old.pth"), filter_fn=checkpoint_filter_fn)
    assert new.stages[0].blocks[0].mixer.bias_patch.shape == (2, 16, 16, 16)
    images = torch.randn(2, 3, 64, 64, **F64)
    # lattices of 16, 8, 4 and 2 cells; seven windows a side continue the first two of them to 21 and 14
    unpadded = dict(windows_per_side=(4, 4, 1, 1))
    old, new = model_of(**sides[0], **unpadded), model_of(**sides[1], **unpadded)
    new.load_state_dict(checkpoint_filter_fn(old.state_dict(), new))
    torch.testing.assert_close(new(images), old(images))
    fewer = model_of(**sides[1], centers_per_side=(3, 2, 7, 4))
    with pytest.raises(RuntimeError, match="size mismatch for stages.0.blocks.0.mixer.bias_patch"):
        fewer.load_state_dict(checkpoint_filter_fn(old.state_dict(), fewer))


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(hierarchy="up"), r"hierarchy must be one of window, shift, none, got 'up'"),
        (dict(geometry_patch="flat"), "geometry_patch must be one of .*euclidean.*hyperbolic.*, got 'flat'"),
        (dict(geometry_window="flat"), "geometry_window must be one of .*euclidean.*hyperbolic.*, got 'flat'"),
        (dict(expmap="up"), "expmap must be one of .*proper.*released.*, got 'up'"),
        (dict(alpha="fixed"), "alpha must be one of .*free.*softplus.*, got 'fixed'"),
        (dict(pad="never"), "pad must be one of .*needed.*always.*, got 'never'"),
        (dict(rel_pos="yes"), "rel_pos must be true, false, 'table' or 'offset', got 'yes'"),
        (dict(curvature=0), "curvature must be above 0, got 0"),
        (dict(curvature=-1.0), "curvature must be above 0, got -1.0"),
        (dict(curvature=float("nan")), "curvature must be above 0, got nan"),
        (dict(heads=(2, 2)), r"heads has 2 values for 4 stages: \(2, 2\)"),
        (dict(head_dim=(4,) * 5), "head_dim has 5 values for 4 stages"),
        (dict(global_centers_per_side=(4, 4)), r"global_centers_per_side has 2 values for 4 stages: \(4, 4\)"),
        (dict(global_centers_per_side=(0, 4, 1, None)), "global_centers_per_side must be at least 1, got"),
        (dict(table_size=(56,)), "table_size has 1 values for 4 stages"),
        (dict(table_size=(56, 28, 0, 7)), "table_size must be at least 1, got"),
        (dict(windows_per_side=(7, 7)), "windows_per_side has 2 values for 4 stages"),
        (dict(centers_per_side=(4,)), "centers_per_side has 1 values for 4 stages"),
        (dict(depths=(1, 1)), "has 4 values for 2 stages"),
        (dict(pretrained=True), "hcformer_tiny: no weights are hosted, and the authors released none"),
    ],
    ids=str,
)
def test_bad_settings_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        pointmix.create_model("hcformer_tiny", **TINY | kwargs)


def test_explain_names_centers_of_every_block():
    model = model_of(depths=(2, 1, 1, 1), hierarchy="shift")
    for points in (ragged(), PointSet.from_images(torch.randn(2, 3, 37, 53, **F64))):
        with torch.no_grad():
            found = model.explain(points)
        assert [a.name[7:] for a in found] == ["0.blocks.0", "0.blocks.1", "1.blocks.0", "2.blocks.0", "3.blocks.0"]
        for a in found:
            centers = (4, 2, 7, 4)[int(a.name[7])] ** 2
            assert a.center.shape == a.weight.shape == (len(a.points.feat), 2)
            assert ((a.weight > 0) & (a.weight <= 1)).all() and int(a.center.max()) < len(a.center_pos)
            assert torch.equal(a.center // centers, a.window[:, None].expand(-1, 2))
