"""The laws for every model as a segmenter: on lattices and on clouds. Narrow, one block a stage, evaluation mode."""

from __future__ import annotations

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import pointmix
from pointmix import PointSet

MODELS = pointmix.list_models()
IMAGE_MODELS = [name for name in MODELS if timm.get_pretrained_cfg(name).input_size]
DISTINCT = ("coc_tiny", "coc_tiny2", "fec_small", "hcformer_tiny")  # others differ in width, depth and centers
CLUSTERS = dict(depths=(1, 1, 1, 1), dims=(16, 24, 32, 48), heads=2, head_dim=8, layer_scale=1.0)
FAMILIES = {"pointmlp": dict(dim=16, pre_blocks=(1, 1, 1, 1), pos_blocks=(1, 1, 1, 1))}
CLOUDS = {"hcformer": dict(rel_pos="offset", coords=True), "pointmlp": {}}
F64 = dict(dtype=torch.float64)


def segmenter_of(name: str, **kwargs) -> torch.nn.Module:
    """A segmenter whose branches all matter, with statistics that are not the start's."""
    torch.manual_seed(1)
    settings = FAMILIES.get(name.split("_")[0], CLUSTERS) | kwargs
    network = pointmix.create_segmenter(name, 4, neck_dim=12, **settings).double().eval()
    with torch.no_grad():
        for key, p in network.state_dict().items():
            if key.endswith("running_var"):
                p.uniform_(0.5, 1.5)
            elif key.endswith("alpha") or ".alpha_" in key:
                p.fill_(2.0)
            elif p.is_floating_point() and (p.ndim == 1 or ".norm" in key or key.endswith(("patch", "window"))):
                p.add_(0.1 * torch.randn_like(p))
            elif key == "head.classifier.weight":
                p.normal_()
    return network


def on_clouds(name: str, **kwargs) -> torch.nn.Module:
    return segmenter_of(name, coord_dims=3, in_chans=2, **(CLOUDS.get(name.split("_")[0], {}) | kwargs))


def ragged_images() -> PointSet:
    sizes = [(64, 48), (37, 53), (9, 70), (1, 1)]
    masks = [torch.rand(size) < 0.4 for size in sizes]
    for mask in masks:
        mask[mask.shape[0] // 2, mask.shape[1] // 2] = True
    return PointSet.from_images([torch.randn(3, *size, **F64) for size in sizes], masks)


def ragged_clouds() -> PointSet:
    """Many and few points, one point, points in one place, equal distances."""

    def cloud(n: int) -> torch.Tensor:
        return torch.randn(n, 3, **F64)

    sets = [cloud(150), cloud(1), cloud(9), cloud(1).expand(30, -1), cloud(60).mul(2).round(), cloud(2)]
    feats = [torch.randn(len(pos), 2, **F64) for pos in sets]
    feats[3] = feats[3][:1].expand(30, -1)
    return PointSet.cat([PointSet.from_points(pos, feat) for pos, feat in zip(sets, feats, strict=True)])


CASES = [*((name, "images") for name in IMAGE_MODELS), *((name, "clouds") for name in MODELS)]


def case(name: str, kind: str) -> tuple[torch.nn.Module, PointSet]:
    return (segmenter_of(name), ragged_images()) if kind == "images" else (on_clouds(name), ragged_clouds())


# ---- 1: grid = sparse grid --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, size", [*((name, (37, 53)) for name in IMAGE_MODELS), *((name, (64, 64)) for name in DISTINCT)], ids=str
)
def test_grid_is_sparse_grid(name, size):
    network, images, results = segmenter_of(name), torch.randn(2, 3, *size, **F64), []
    probe = torch.randn(2 * size[0] * size[1], 4, **F64)
    for sparse in (False, True):
        images = images.detach().requires_grad_()
        points = PointSet.from_batch(images)
        logits = network(points.as_sparse() if sparse else points)
        weights = [p for p in network.parameters() if p.requires_grad]
        results.append([logits, *torch.autograd.grad((logits * probe).sum(), [images, *weights])])
    for grid, few in zip(*results, strict=True):
        torch.testing.assert_close(few, grid, rtol=1e-9, atol=1e-9)


# ---- 2: masked = cropped ----------------------------------------------------------------------------------------

# What looks at the whole lattice, as in test_laws; the head itself is local and obeys.
LOCAL = {"hcformer": dict(hierarchy="none", rel_pos=False)}
WHOLE = {"fec": dict(centers_per_side=(8, 8, 4, 4))}
QUARTER = {"fec": dict(centers_per_side=(4, 4, 2, 2))}


@pytest.mark.parametrize(
    "name, row, col", [*((name, 64, 96) for name in IMAGE_MODELS), *((name, 0, 0) for name in DISTINCT)]
)
def test_masked_is_cropped(name, row, col):
    image, mask = torch.randn(3, 128, 192, **F64), torch.zeros(128, 192, dtype=torch.bool)
    mask[row : row + 64, col : col + 96] = True
    crop = PointSet.from_image(image[:, row : row + 64, col : col + 96])
    pos = PointSet.from_image(image).pos.view(128, 192, 2)[row : row + 64, col : col + 96]
    crop = PointSet(pos.reshape(-1, 2), crop.feat, crop.ptr, crop.layout)
    family = name.split("_")[0]
    flags = LOCAL.get(family, {})
    whole = segmenter_of(name, **WHOLE.get(family, dict(windows_per_side=(8, 4, 2, 2))), **flags)
    quarter = segmenter_of(name, **QUARTER.get(family, dict(windows_per_side=(4, 2, 1, 1))), **flags)
    quarter.load_state_dict(whole.state_dict())
    with torch.no_grad():
        masked = whole(PointSet.from_image(image, mask))
        torch.testing.assert_close(masked, quarter(crop), rtol=1e-9, atol=1e-9)


# ---- 3: order does not matter -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name, kind", CASES)
def test_logits_are_permuted_as_their_points(name, kind, shuffle):
    network, points = case(name, kind)
    if kind == "clouds":
        points = PointSet.cat([ragged_clouds().unbind()[i] for i in (0, 2, 4)])  # points that can be told apart
        points = points.subset(_first_of_each_place(points))
    moved, order = shuffle(points)
    with torch.no_grad():
        torch.testing.assert_close(network(moved), network(points)[order], rtol=1e-9, atol=1e-9)


def _first_of_each_place(points: PointSet) -> torch.Tensor:
    rows = torch.cat([points.batch[:, None].double(), points.pos], dim=1)
    inverse = torch.unique(rows, dim=0, return_inverse=True)[1]
    place = torch.arange(len(rows))
    first = place.new_full((int(inverse.max()) + 1,), len(rows)).scatter_reduce(0, inverse, place, "amin")
    return torch.isin(place, first)


# ---- 4: the other sets of the batch do not matter ---------------------------------------------------------------


@pytest.mark.parametrize("name, kind", CASES)
def test_other_sets_do_not_matter(name, kind):
    network, points = case(name, kind)
    with torch.no_grad():
        together = network(points)
        alone = torch.cat([network(part) for part in points.unbind()])
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name, kind", CASES)
def test_nan_stays_in_its_set(name, kind):
    network, points = case(name, kind)
    feat = points.feat.clone()
    feat[points.ptr[2] : points.ptr[2] + 3] = float("nan")
    with torch.no_grad():
        clean, dirty = network(points), network(points.with_feat(feat))
    others = points.batch != 2
    assert dirty[~others].isnan().any()
    torch.testing.assert_close(dirty[others], clean[others], rtol=1e-9, atol=1e-9)


# ---- 5: cost follows the points ---------------------------------------------------------------------------------


def operations(network: torch.nn.Module, points: PointSet) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(points)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", DISTINCT)
def test_operations_follow_the_pixels(name):
    network = segmenter_of(name)
    image = torch.randn(3, 224, 224, **F64)
    patches = torch.zeros(56 * 56, dtype=torch.bool)
    patches[torch.randperm(56 * 56)[: 56 * 14]] = True
    mask = patches.view(56, 1, 56, 1).expand(-1, 4, -1, 4).reshape(224, 224)
    full = operations(network, PointSet.from_image(image))
    least = 0.1 if name.startswith("fec") else 0.2  # FEC's pooling compares all points with all centers
    assert least * full < operations(network, PointSet.from_image(image, mask)) < 0.35 * full
    assert operations(network, PointSet.from_image(image).as_sparse()) < 1.05 * full


@pytest.mark.parametrize("name", MODELS)
def test_operations_follow_the_points(name):
    network = on_clouds(name)
    pos, feat = torch.rand(2048, 3, **F64), torch.randn(2048, 2, **F64)
    full, part = (operations(network, PointSet.from_points(pos[:n], feat[:n])) for n in (2048, 512))
    assert part < 0.35 * full
