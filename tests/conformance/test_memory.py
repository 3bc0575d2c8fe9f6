"""No tensor of centers x points x channels, and memory that grows as the points do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pointmix
from pointmix import PointSet
from pointmix.nn.cluster_pool import ClusterPool
from pointmix.nn.mixers.context import ContextCluster
from pointmix.nn.norm import SetIndex
from pointmix.ops import largest as largest_module
from pointmix.ops.mlp import pieces

MODELS = [name for name in pointmix.list_models() if timm.get_pretrained_cfg(name).input_size]  # that take images


def model_of(name: str, **kwargs) -> torch.nn.Module:
    torch.manual_seed(1)
    return pointmix.create_model(name, **dict(depths=(1, 1, 1, 1), layer_scale=1.0, num_classes=10) | kwargs).train()


def points_of(layout: str, side: int, dim: int = 3, batch: int = 2) -> PointSet:
    points = PointSet.from_batch(torch.randn(batch, dim, side, side))
    return dict(grid=lambda: points, sparse=points.as_sparse, cloud=points.as_cloud)[layout]()


def largest(run: Callable[[], torch.Tensor], sizes: type[TorchDispatchMode]) -> int:
    """Numbers in the largest tensor of a forward and a backward pass."""
    with sizes() as seen:
        run().square().sum().backward()
    return max(seen.elements)


def kept(run: Callable[[], torch.Tensor], module: torch.nn.Module) -> int:
    """Bytes that the backward pass finds kept, without the parameters."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    found: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        place = x.untyped_storage()
        if place.data_ptr() not in own:
            found[place.data_ptr()] = place.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = run()
    total = sum(found.values())
    assert out.requires_grad and total
    return total


# ---- the largest tensor -----------------------------------------------------------------------------------------


def mixing(model: torch.nn.Module, stage: int, layout: str) -> tuple[Callable[[], torch.Tensor], int, int]:
    """A pass through a mixer of a model, the slots of its rows, and the numbers of a slot that it may hold: queries and
    values, features, or a similarity to each center in each head."""
    part = model.stages[stage]
    mixer, dim = part.blocks[0].mixer, model.feature_info[stage]["num_chs"]
    points = points_of(layout, 32 >> stage, dim)
    plan, sets = part.plan(points), SetIndex.of(points)
    x = plan.to_window_order(points.feat).requires_grad_()
    width = max(2 * mixer.heads * mixer.head_dim, dim, mixer.heads * part.centers_per_side**2)
    return lambda: mixer(x, plan, sets), plan.window_partition(x)[..., 0].numel(), width


@pytest.mark.parametrize("layout", ["grid", "sparse"])
@pytest.mark.parametrize("name", MODELS)
def test_mixers_hold_no_centers_by_points_by_channels(name, layout, sizes):
    fast, reference = model_of(name), model_of(name, reference=True)
    for stage in range(4):
        run, slots, width = mixing(fast, stage, layout)
        weights = max(p.numel() for p in fast.stages[stage].blocks[0].mixer.parameters())
        most = max(slots * width, weights)
        assert largest(run, sizes) <= most, stage
        if slots * width > weights:
            assert largest(mixing(reference, stage, layout)[0], sizes) > most, stage


@pytest.mark.parametrize("layout", ["grid", "sparse", "cloud"])
def test_pools_hold_no_centers_by_points(layout, sizes, monkeypatch):
    monkeypatch.setattr(largest_module, "PIECE", 2**12)
    points, seen = points_of(layout, 32, 16), []
    for reference in (False, True):
        pool = ClusterPool(16, 24, reference=reference)
        seen.append(largest(lambda pool=pool: pool(points).feat, sizes))
    columns = 9 * 16 * 512  # of the reducer's kernel, where points are gathered
    assert seen[0] <= max(2048 * 24, columns) < seen[1]


@pytest.mark.parametrize("name", ["coc_tiny", "coc_tiny2", "coc_tiny_plain", "fec_small", "hcformer_tiny"])
def test_networks_hold_no_more_than_queries_and_values(name, sizes, monkeypatch):
    """Nor the hidden layers of the first, largest stage."""
    monkeypatch.setattr(pieces, "CACHED", 2**17)
    monkeypatch.setattr(largest_module, "PIECE", 2**15)
    x = torch.randn(4, 3, 128, 128)
    fast, reference = model_of(name), model_of(name, reference=True)
    widths = []
    for i, stage in enumerate(fast.stages):
        mixer, dim = stage.blocks[0].mixer, fast.feature_info[i]["num_chs"]
        width = max(2 * mixer.heads * mixer.head_dim, dim, mixer.heads * stage.centers_per_side**2)
        widths.append(width * 4096 >> 2 * i)
    most = max(*widths, x.numel(), *(p.numel() for p in fast.parameters()))
    assert largest(lambda: fast(x), sizes) <= 1.5 * most  # windows continued by reflection have more slots than points
    assert largest(lambda: reference(x), sizes) > 1.5 * most


# ---- growth with the points -------------------------------------------------------------------------------------

LINEAR = 4.2  # of four times the points


def growth(make: Callable[[int], tuple[torch.nn.Module, Callable[[], torch.Tensor]]], sizes) -> tuple[float, float]:
    """How often the bytes kept and the largest tensor of 16x16 points go into those of 32x32."""
    small, large = make(16), make(32)
    bytes_of = [kept(run, module) for module, run in (small, large)]
    numbers = [largest(run, sizes) for _, run in (small, large)]
    return bytes_of[1] / bytes_of[0], numbers[1] / numbers[0]


def clustering(layout: str, head_dim: int, windows_per_side: Callable[[int], int], centers: Callable[[int], int]):
    def make(side: int):
        mixer, points = ContextCluster(8, heads=2, head_dim=head_dim), points_of(layout, side, 8)
        plan = points.layout.plan(points.pos, points.ptr, windows_per_side(side), centers(side))
        x = plan.to_window_order(points.feat).requires_grad_()
        return mixer, lambda: mixer(x, plan, SetIndex.of(points))

    return make


@pytest.mark.parametrize("windows", ["more", "larger"])
@pytest.mark.parametrize("head_dim", [2, 8])  # worked out at the points, at the centers
@pytest.mark.parametrize("layout", ["grid", "sparse", "cloud"])
def test_hard_clustering_is_linear_in_the_points(layout, head_dim, windows, sizes):
    make = clustering(layout, head_dim, lambda side: side // 8 if windows == "more" else 2, lambda side: 2)
    # boxes of a cloud hold more and fewer points, and rows are filled up to the longest
    assert max(growth(make, sizes)) <= (LINEAR if layout != "cloud" else 1.5 * LINEAR)


def test_centers_that_grow_with_the_points_are_not_linear(sizes):
    """What the tests beside this one would see."""
    assert min(growth(clustering("grid", 2, lambda side: 1, lambda side: side // 4), sizes)) > LINEAR


@pytest.mark.parametrize("name", ["coc_tiny", "coc_tiny2", "coc_tiny_plain", "fec_small", "hcformer_tiny"])
@pytest.mark.parametrize("layout", ["grid", "sparse"])
def test_networks_are_linear_in_the_points(name, layout, sizes, monkeypatch):
    monkeypatch.setattr(largest_module, "PIECE", 2**12)

    def make(side: int):
        model, points = model_of(name, dims=(8, 16, 24, 32), head_dim=8), points_of(layout, 4 * side, batch=1)
        return model, lambda: model(points)

    assert max(growth(make, sizes)) <= LINEAR


def test_checkpointing_keeps_a_part():
    found = []
    for enable in (False, True):
        model, points = model_of("coc_tiny", depths=(4, 4, 4, 4)), points_of("grid", 64)
        model.set_grad_checkpointing(enable)
        found.append(kept(lambda model=model, points=points: model(points), model))
    assert found[1] < 0.4 * found[0]
