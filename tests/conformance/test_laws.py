"""The laws that hold lattices together, for every model of images. Widths are the models' own, one block a stage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import pointmix
from pointmix import PointSet
from pointmix.layouts.grid import Grid
from pointmix.layouts.plan import UniformPlan
from pointmix.nn.norm import SetIndex

MODELS = [name for name in pointmix.list_models() if timm.get_pretrained_cfg(name).input_size]  # that take images
DISTINCT = ("coc_tiny", "coc_tiny2", "coc_tiny_plain", "fec_small", "hcformer_tiny")  # others differ in width and depth
F64 = dict(dtype=torch.float64)


def model_of(name: str, **kwargs) -> torch.nn.Module:
    """A model whose branches all matter, with similarities that are neither flat nor the start's."""
    torch.manual_seed(1)
    settings = dict(depths=(1, 1, 1, 1), layer_scale=1.0, num_classes=10) | kwargs
    model = pointmix.create_model(name, **settings).double().eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if key.endswith("alpha") or ".alpha_" in key:
                p.fill_(2.0)
            elif key.endswith(("bias_patch", "bias_window")):
                p.normal_(std=0.5)
            elif key.endswith("beta"):
                p.fill_(-0.5)
            elif key.endswith(("bias", "gamma")) or ".norm" in key:
                p.add_(0.1 * torch.randn_like(p))
    return model


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def random_masks(sizes: list[tuple[int, int]], density: float) -> list[torch.Tensor]:
    masks = [torch.rand(size) < density for size in sizes]
    for mask in masks:
        mask[mask.shape[0] // 2, mask.shape[1] // 2] = True
    return masks


def ragged_batch(density: float = 0.4) -> PointSet:
    sizes = [(64, 48), (37, 53), (9, 70), (1, 1)]
    return PointSet.from_images([torch.randn(3, *size, **F64) for size in sizes], random_masks(sizes, density))


# ---- 1: grid = sparse grid --------------------------------------------------------------------------------------

SIZES = [(1, 1), (1, 7), (29, 1), (37, 53), (64, 64), (64, 96)]


def assert_layouts_agree(model: torch.nn.Module, images: torch.Tensor) -> None:
    probe, results = torch.randn(len(images), 10, **F64), []
    for sparse in (False, True):
        images = images.detach().requires_grad_()
        points = PointSet.from_batch(images)
        logits = model(points.as_sparse() if sparse else points)
        gradients = torch.autograd.grad((logits * probe).sum(), [images, *trained(model)])
        results.append([logits, *gradients])
    assert isinstance(points.layout, Grid)
    for grid, sparse in zip(*results, strict=True):
        torch.testing.assert_close(sparse, grid, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name, size", [(n, s) for n in MODELS for s in SIZES if n in DISTINCT or s == (37, 53)], ids=str
)
def test_grid_is_sparse_grid(name, size):
    assert_layouts_agree(model_of(name), torch.randn(2, 3, *size, **F64))


@pytest.mark.parametrize("name", ["coc_tiny", "coc_tiny2", "coc_tiny_plain", "fec_small"])
def test_grid_is_sparse_grid_on_a_larger_image(name):
    assert_layouts_agree(model_of(name), torch.randn(1, 3, 200, 304, **F64))


@pytest.mark.parametrize(
    "flags",
    [
        dict(denominator="count"),
        dict(center_updates=2),
        dict(coords=False),
        dict(cluster=False),
        dict(centers_per_side=(3, 3, 3, 3), windows_per_side=(3, 2, 2, 1)),
        dict(stem=(3, 1, 1)),
        dict(stem=(7, 4, 3)),
        dict(keep_cells="occupied"),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(37, 53), (32, 32)])
def test_grid_is_sparse_grid_with(flags, size):
    assert_layouts_agree(model_of("coc_tiny", **flags), torch.randn(2, 3, *size, **F64))


@pytest.mark.parametrize(
    "flags",
    [
        dict(hierarchy="shift", depths=(2, 2, 1, 1)),
        dict(hierarchy="none"),
        dict(rel_pos=False),
        dict(rel_pos="offset"),
        dict(geometry_patch="hyperbolic"),
        dict(geometry_window="euclidean"),
        dict(pad="always"),
        dict(coords=True),
        dict(cat_norm=True),
        dict(expmap="released"),
        dict(alpha="softplus"),
        dict(curvature=10.0, learn_curvature=True),
        dict(global_centers_per_side=(3, None, 2, 2)),
        dict(centers_per_side=(3, 3, 3, 3), windows_per_side=(3, 2, 2, 1)),
        dict(table_size=(8, 4, 2, 1)),
        dict(keep_cells="occupied"),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(37, 53), (32, 32)])
def test_grid_is_sparse_grid_of_hcformer_with(flags, size):
    assert_layouts_agree(model_of("hcformer_nano", **flags), torch.randn(2, 3, *size, **F64))


def test_grid_is_sparse_grid_where_centers_coincide():
    for _ in range(5):
        assert_layouts_agree(model_of("coc_tiny2"), torch.randn(2, 3, 4, 120, **F64))


# ---- 2: masked = cropped ----------------------------------------------------------------------------------------

# what looks at the whole lattice, as centers over all windows and tables of positions do, cannot obey this law
LOCAL = {"hcformer": dict(hierarchy="none", rel_pos=False)}


# Models that cluster the whole set have no windows to align: there the quarter has as many of its centers.
WHOLE = {"fec": dict(centers_per_side=(8, 8, 4, 4))}
QUARTER = {"fec": dict(centers_per_side=(4, 4, 2, 2))}


@pytest.mark.parametrize("row, col", [(0, 0), (0, 96), (64, 96)])
@pytest.mark.parametrize(
    "name, inside",
    [*((name, "all") for name in MODELS), ("coc_tiny", "some"), ("coc_tiny2", "some"), ("fec_small", "some")],
)
def test_masked_is_cropped(name, inside, row, col):
    """A quarter of 128x192 pixels, aligned with the windows of every stage (4x6, 4x6, 4x6 and 2x3 cells)."""
    image, mask = torch.randn(3, 128, 192, **F64), torch.zeros(128, 192, dtype=torch.bool)
    mask[row : row + 64, col : col + 96] = True
    if inside == "some":
        mask &= torch.rand(128, 192) < 0.4
    masked = PointSet.from_image(image, mask)

    crop = PointSet.from_image(image[:, row : row + 64, col : col + 96])
    pos = PointSet.from_image(image).pos.view(128, 192, 2)[row : row + 64, col : col + 96]
    crop = PointSet(pos.reshape(-1, 2), crop.feat, crop.ptr, crop.layout)
    if inside == "some":
        crop = crop.subset(mask[row : row + 64, col : col + 96].flatten())
    assert torch.equal(crop.feat, masked.feat)

    # "area" breaks ties by the place on the lattice, which is another one here
    family = name.split("_")[0]
    flags = dict(keep_cells="occupied" if inside == "some" else "area", **LOCAL.get(family, {}))
    whole = model_of(name, **WHOLE.get(family, dict(windows_per_side=(8, 4, 2, 2))), **flags)
    quarter = model_of(name, **QUARTER.get(family, dict(windows_per_side=(4, 2, 1, 1))), **flags)
    quarter.load_state_dict(whole.state_dict())
    with torch.no_grad():
        for a, b in zip(*(m.forward_intermediates(p)[1] for m, p in ((whole, masked), (quarter, crop))), strict=True):
            torch.testing.assert_close(a.feat, b.feat, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(a.pos, b.pos)
        torch.testing.assert_close(whole(masked), quarter(crop), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_hidden_pixels_are_absent_not_painted(name):
    model, image = model_of(name), torch.randn(3, 64, 64, **F64)
    mask = random_masks([(64, 64)], 0.5)[0] & ~quarter_of_patches(16)  # pixels, and whole patches too
    with torch.no_grad():
        logits = model(PointSet.from_image(image, mask))
        for value in (float("nan"), 1e9):
            assert torch.equal(model(PointSet.from_image(torch.where(mask, image, value), mask)), logits)
        assert not torch.allclose(model(PointSet.from_image(image * mask)), logits, atol=1e-3)


# ---- 3: order does not matter -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_order_of_points_does_not_matter(name, shuffle):
    model = model_of(name)
    with torch.no_grad():
        for points in (ragged_batch(), PointSet.from_images(torch.randn(2, 3, 64, 64, **F64)).as_sparse()):
            torch.testing.assert_close(model(shuffle(points)[0]), model(points), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_blocks_permute_as_their_points(name, shuffle):
    """Within a stage the output of a permuted set is the permuted output."""
    model = model_of(name)
    dims = [info["num_chs"] for info in model.feature_info]
    sizes = [(14, 14), (5, 23), (1, 1)]
    base = PointSet.from_images([torch.randn(1, *size, **F64) for size in sizes], random_masks(sizes, 0.6))
    with torch.no_grad():
        for stage, dim in zip(model.stages, dims, strict=True):
            points = base.with_feat(torch.randn(len(base.feat), dim, **F64))
            moved, order = shuffle(points)
            outs = []
            for p in (points, moved):
                plan, sets = stage.plan(p), SetIndex.of(p)
                outs.append(plan.from_window_order(stage.blocks[0](plan.to_window_order(p.feat), plan, sets)))
            torch.testing.assert_close(outs[1], outs[0][order], rtol=1e-9, atol=1e-9)


# ---- 4: the other sets of the batch do not matter ---------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_other_sets_do_not_matter(name):
    model = model_of(name)
    with torch.no_grad():
        for points in (ragged_batch(), PointSet.from_images(torch.randn(3, 3, 37, 53, **F64))):
            together = model(points)
            alone = torch.cat([model(part) for part in points.unbind()])
            torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
            backwards = model(PointSet.cat(points.unbind()[::-1])).flip(0)
            torch.testing.assert_close(together, backwards, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_batch_are_sums(name):
    model, points = model_of(name), ragged_batch()
    probe = torch.randn(points.num_sets, 10, **F64)
    parameters = trained(model)
    together = torch.autograd.grad((model(points) * probe).sum(), parameters)
    alone = [
        torch.autograd.grad((model(part) * row).sum(), parameters)
        for part, row in zip(points.unbind(), probe, strict=True)
    ]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(whole, sum(parts), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["ragged", "even", "uneven"])
@pytest.mark.parametrize("name", MODELS)
def test_nan_stays_in_its_set(name, kind):
    sizes = dict(even=(64, 64), uneven=(37, 53))
    points = ragged_batch() if kind == "ragged" else PointSet.from_images(torch.randn(3, 3, *sizes[kind], **F64))
    feat = points.feat.clone()
    feat[points.ptr[1] : points.ptr[1] + 3] = float("nan")
    model = model_of(name)
    with torch.no_grad():
        clean, dirty = model(points), model(points.with_feat(feat))
    assert dirty[1].isnan().all()
    others = torch.arange(points.num_sets) != 1
    torch.testing.assert_close(dirty[others], clean[others], rtol=1e-9, atol=1e-9)


# ---- 5: cost follows the points ---------------------------------------------------------------------------------


def quarter_of_patches(side: int = 56) -> torch.Tensor:
    """A random quarter of the 4x4 patches, (4 side, 4 side)."""
    patches = torch.zeros(side * side, dtype=torch.bool)
    patches[torch.randperm(side * side)[: side * side // 4]] = True
    return patches.view(side, 1, side, 1).expand(-1, 4, -1, 4).reshape(4 * side, 4 * side)


@pytest.mark.parametrize("seed", range(3))
def test_a_quarter_of_the_patches_is_a_quarter_of_the_points_in_every_stage(seed):
    torch.manual_seed(seed)
    model = pointmix.create_model("coc_tiny", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), head_dim=4).eval()
    points = PointSet.from_image(torch.randn(3, 224, 224), quarter_of_patches())
    numbers, plans = [], []
    points = model.as_points(points)
    with torch.no_grad():
        for stage in model.stages:
            plans.append(stage.plan(stage.reducer(points)))
            points = stage(points)
            numbers.append(len(points.feat))
    assert numbers == [784, 196, 49, 13]
    for number, plan in zip(numbers, plans, strict=True):
        assert plan.partition_index.numel() <= 2 * number + 2 * plan.num_windows
        assert plan.pool_weight.numel() <= plan.partition_index.numel() * 4


@pytest.mark.parametrize("name", ["coc_tiny", "fec_small", "hcformer_tiny"])
def test_a_tenth_of_the_pixels_is_a_tenth_of_the_points_in_every_stage(name):
    model = pointmix.create_model(name, depths=(1, 1, 1, 1)).eval()
    mask = torch.zeros(224 * 224, dtype=torch.bool)
    mask[torch.randperm(len(mask))[:5018]] = True
    points = PointSet.from_image(torch.randn(3, 224, 224), mask.view(224, 224))
    with torch.no_grad():
        found = model.forward_intermediates(points, intermediates_only=True)
    assert [len(p.feat) for p in found] == [314, 79, 20, 5]


def operations(run: Callable[[], torch.Tensor]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", MODELS)
def test_operations_follow_the_points(name):
    """A pool that compares all points with all centers takes a sixteenth; at these sizes that is a small part."""
    model = pointmix.create_model(name, depths=(1, 1, 1, 1)).eval()
    image, mask = torch.randn(3, 224, 224), quarter_of_patches()
    full = operations(lambda: model(image[None]))
    part = operations(lambda: model(PointSet.from_image(image, mask)))
    listed = operations(lambda: model(PointSet.from_image(image).as_sparse()))
    assert 0.2 * full < part < 0.35 * full
    assert listed < 1.05 * full


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_lonely_points_costs_little(name):
    """One pixel of a large lattice is one point in every stage."""
    model = pointmix.create_model(name, depths=(1, 1, 1, 1)).eval()
    points = PointSet.from_pixels(torch.rand(1, 3), [700], [1300], (1024, 2048))
    with torch.no_grad():
        found = model.forward_intermediates(points, intermediates_only=True)
    assert [len(p.feat) for p in found] == [1, 1, 1, 1]
    assert found[-1].layout.size.tolist() == [[32, 64]]


# ---- any size ---------------------------------------------------------------------------------------------------


ANY_SIZES = [(1, 1), (1, 7), (7, 1), (2, 3), (3, 300), (13, 17), (31, 97), (65, 63)]


@pytest.mark.parametrize(
    "name, size", [(n, s) for n in MODELS for s in ANY_SIZES if n in DISTINCT or s in ((1, 1), (31, 97))], ids=str
)
def test_any_size_works(name, size):
    model = pointmix.create_model(name, depths=(1, 1, 1, 1), layer_scale=1.0, num_classes=10)
    images = torch.randn(2, 3, *size, requires_grad=True)
    _, maps = model.forward_intermediates(images)
    strides = [4, 8, 16, 32]
    assert [tuple(m.shape[2:]) for m in maps] == [tuple(-(-side // s) for side in size) for s in strides]
    model(images).square().sum().backward()
    # the last pixel is read, not cut off
    assert images.grad.isfinite().all() and (images.grad[..., -1, -1] != 0).any()


@pytest.mark.parametrize("size", [(200, 304), (97, 61), (20, 300)])
def test_uneven_windows_differ_by_one_at_most(size):
    model = pointmix.create_model("coc_tiny", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), head_dim=4).eval()
    for stage, found in zip(model.stages, model.explain(torch.rand(1, 3, *size)), strict=True):
        lattice = found.points.layout.size
        window = found.window.view(lattice)
        windows_per_side = [min(stage.windows_per_side, side) for side in lattice]
        assert int(window.max()) + 1 == windows_per_side[0] * windows_per_side[1]
        for line, parts, side in zip((window[:, 0], window[0]), windows_per_side, lattice, strict=True):
            counts = line.unique(return_counts=True)[1]
            assert len(counts) == parts and counts.sum() == side and counts.max() - counts.min() <= 1
        plan = stage.plan(found.points)
        even = [
            side % parts == 0 and side // parts >= stage.centers_per_side
            for side, parts in zip(lattice, windows_per_side, strict=True)
        ]
        assert isinstance(plan, UniformPlan) == all(even)
