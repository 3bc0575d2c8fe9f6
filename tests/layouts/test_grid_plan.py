"""Plans and positions of whole lattices are built once, and serve whatever comes."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from dataclasses import fields, is_dataclass, replace

import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pointmix
from pointmix import PointSet
from pointmix.layouts import cache
from pointmix.layouts.grid import Grid

SHALLOW = dict(depths=(1, 1, 1, 1), layer_scale=1.0, num_classes=10)
SIZES = [(64, 64), (50, 44)]  # views of equal windows, and gathered ones
BUILDING = {"arange", "stack", "full", "floor_divide", "remainder", "bitwise_and", "sort", "cumsum", "avg_pool2d"}
MODELS = [name for name in pointmix.list_models() if timm.get_pretrained_cfg(name).input_size]  # that take images


@pytest.fixture(autouse=True)
def empty():
    cache.clear()
    yield
    cache.clear()


def model_of(name: str = "coc_tiny", **kwargs) -> torch.nn.Module:
    torch.manual_seed(1)
    return pointmix.create_model(name, **SHALLOW | kwargs)


class Operations(TorchDispatchMode):
    """How often each operation runs, by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operations(model: torch.nn.Module, x: torch.Tensor) -> Counter[str]:
    with Operations() as counter:
        model(x)
    return counter.seen


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["coc_tiny", "hcformer_tiny"])
def test_the_second_forward_builds_nothing(name, size, inference):
    model, x = model_of(name).eval(), torch.randn(2, 3, *size)
    with torch.inference_mode(inference):
        first, second, third = (operations(model, x) for _ in range(3))
    assert second == third and second.total() < first.total() - 100
    assert BUILDING & set(first) > {"arange", "stack", "floor_divide", "avg_pool2d"}
    own = {"hcformer_tiny": {"stack"}}.get(name, set())  # of the mixers
    assert not (BUILDING - own) & set(second)


def test_a_larger_batch_builds_its_plans_and_takes_the_position_planes():
    model = model_of().eval()
    with torch.no_grad():
        operations(model, torch.randn(2, 3, 64, 64))
        seen = operations(model, torch.randn(3, 3, 64, 64))
    assert seen["arange"] and not seen["avg_pool2d"]


@pytest.mark.parametrize("name", ["coc_tiny", "hcformer_tiny", "fec_small"])
def test_whatever_was_asked_for_before(name):
    """Inference, training, precisions, sizes and batches in turns give what each gives alone."""
    model = model_of(name)
    inputs = [torch.randn(batch, 3, *size) for batch, size in [(2, SIZES[0]), (2, SIZES[1]), (1, SIZES[0])]]
    cases = [(x, dtype, train) for dtype in (torch.float32, torch.float64) for train in (False, True) for x in inputs]

    def run(x: torch.Tensor, dtype: torch.dtype, train: bool) -> list[torch.Tensor]:
        network = model.to(dtype)
        if not train:
            with torch.inference_mode():
                return [network(x.to(dtype))]
        out = network(x.to(dtype))
        parameters = [p for p in network.parameters() if p.requires_grad]
        return [out.detach(), *torch.autograd.grad(out.square().sum(), parameters)]

    alone = []
    for case in cases:
        cache.clear()
        alone.append(run(*case))
    cache.clear()
    for case, expected in zip(cases * 2, alone * 2, strict=True):
        for found, there in zip(run(*case), expected, strict=True):
            assert found.dtype == case[1] and torch.equal(found, there)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "kwargs", [{}, dict(pad="needed", table_size=7, global_centers_per_side=2), dict(pad="needed", shift=True)], ids=str
)
def test_plans_do_not_depend_on_positions(size, kwargs):
    points = PointSet.from_batch(torch.randn(2, 3, *size))
    plan = points.layout.plan(points.pos, points.ptr, 4, 2, **kwargs)
    assert points.layout.plan(torch.randn_like(points.pos), points.ptr.clone(), 4, 2, **kwargs) is plan
    assert points.layout.plan(points.pos.double(), points.ptr, 4, 2, **kwargs).pool_weight.dtype == torch.float64
    for tensor in tensors(plan):
        assert not tensor.is_inference() and not tensor.requires_grad


def tensors(value: object) -> list[torch.Tensor]:
    if is_dataclass(value):
        return [t for field in fields(value) for t in tensors(getattr(value, field.name))]
    return [value] if isinstance(value, torch.Tensor) else []


@pytest.mark.parametrize("name", MODELS)
def test_nobody_writes_to_what_is_shared(name):
    model = model_of(name).train()
    for mode in (torch.enable_grad, torch.inference_mode):
        with mode():
            for size in SIZES:
                out = model(torch.randn(2, 3, *size))
                if mode is torch.enable_grad:
                    out.sum().backward()
    entries = list(cache._entries.values())
    assert len(entries) > 10
    for _, versions, _ in entries:
        assert all(t._version == version for t, version in versions)


def test_models_are_copied_and_saved_without_it():
    model, x = model_of().eval(), torch.randn(2, 3, 50, 44)
    before = len(pickle.dumps(model))
    with torch.no_grad():
        out = model(x)
        assert len(pickle.dumps(model)) == before and cache.cached_bytes() > 0
        assert torch.equal(copy.deepcopy(model)(x), out) and torch.equal(pickle.loads(pickle.dumps(model))(x), out)


def test_many_sizes_do_not_add_up(monkeypatch):
    monkeypatch.setattr(cache, "BYTES", 2**18)
    model = model_of(dims=(8, 8, 8, 8), head_dim=4).eval()
    with torch.inference_mode():
        for side in range(33, 129, 5):
            model(torch.randn(1, 3, side, 97))
            assert cache.cached_bytes() <= 2**18 and len(cache._entries) <= cache.ENTRIES


# ---- positions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*SIZES, (37, 5), (1, 1)])
@pytest.mark.parametrize("mode", ["inclusive", "exclusive"])
@pytest.mark.parametrize("coords", [True, False])
def test_images_are_what_their_points_are(size, mode, coords):
    """Positions worked out once are those of an average over each image; the features are the same numbers."""
    model, x = model_of(coord_mode=mode, coords=coords).eval(), torch.randn(3, 3, *size)
    with torch.inference_mode():
        given = PointSet.from_batch(x, coord_mode=mode)
        given = replace(given, pos=given.pos.clone())  # of which nothing is known
        assert torch.equal(model.as_points(x).feat, model.as_points(given).feat)
        for _ in range(2):
            found, expected = model.as_points(x), given.with_feat(model.as_points(given).feat)
            for stage in model.stages:
                assert torch.equal(found.pos, expected.pos) and torch.equal(found.ptr, expected.ptr)
                found, expected = stage(found), stage(expected)
            assert torch.equal(found.pos, expected.pos) and torch.equal(found.feat, expected.feat)


def test_positions_of_the_user_are_kept():
    """Other positions in each set, and positions that somebody wrote to."""
    model = model_of().eval()
    x = torch.randn(2, 3, 32, 32)
    pos = torch.rand(2 * 32 * 32, 2)
    mean = torch.nn.functional.avg_pool2d(pos.view(2, 32, 32, 2).permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)
    with torch.no_grad():
        model(x)
        points = PointSet.from_batch(x)
        own = PointSet(pos, points.feat, points.ptr, Grid((32, 32)))
        torch.testing.assert_close(model.stages[0](model.as_points(own)).pos, mean.reshape(-1, 2))
        written = model.as_points(x)
        written.pos.copy_(pos)
        torch.testing.assert_close(model.stages[0](written).pos, mean.reshape(-1, 2))


def test_positions_may_want_gradients():
    model = model_of().eval()
    points = model.as_points(torch.randn(2, 3, 32, 32))
    points.pos.requires_grad_()
    assert model.stages[0](points).pos.requires_grad


def test_points_own_their_positions():
    """Nobody else's change with them."""
    model, x = model_of().eval(), torch.randn(2, 3, 32, 32)

    def some() -> list[PointSet]:
        images = x, x[:1]
        return [make(i) for i in images for make in (PointSet.from_batch, model.as_points)] + [
            model.stages[0](model.as_points(i)) for i in images
        ]

    first, second = some(), some()
    kept = [p.pos.clone() for p in first]
    for points in first:
        points.pos.zero_()
    for points in (second, some()):
        assert all(torch.equal(p.pos, pos) for p, pos in zip(points, kept, strict=True))
