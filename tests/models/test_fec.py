from __future__ import annotations

import pytest
import torch

import pointmix
from pointmix import PointSet
from pointmix.nn.cluster_pool import ClusterPool
from pointmix.nn.reducer import Reducer

TINY = dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), heads=2, head_dim=4, num_classes=5)
PARAMETERS = dict(  # of a classifier and of a pyramid
    fec_small=(5_727_528, 5_407_112),
    fec_base=(15_086_848, 14_574_872),
    fec_large=(29_720_344, 29_208_368),
)


def count(name: str, **kwargs) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in pointmix.create_model(name, **kwargs).parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_exact_parameters(name):
    assert (count(name), count(name, pyramid=True)) == PARAMETERS[name]
    assert count(name, pyramid=True, centers_per_side=(10, 10, 5, 5)) == PARAMETERS[name][1]
    # of Context Clusters of the same size, and of two linear maps and a norm a pool
    reference = dict(fec_small="coc_tiny", fec_base="coc_small", fec_large="coc_medium")[name]
    dims = [info["num_chs"] for info in pointmix.create_model(name, depths=(1, 1, 1, 1)).feature_info]
    pools = sum(2 * (a + 1) * b + 2 * b for a, b in zip(dims[:-1], dims[1:], strict=True))
    assert count(name) == count(reference) + pools


@pytest.mark.parametrize("name", PARAMETERS)
def test_windows_centers_and_pools(name):
    model = pointmix.create_model(name, depths=(1, 1, 1, 1))
    assert [(s.windows_per_side, s.centers_per_side) for s in model.stages] == [(1, 4), (1, 4), (1, 2), (1, 2)]
    assert [type(s.reducer) for s in model.stages] == [Reducer, ClusterPool, ClusterPool, ClusterPool]
    assert all(block.mixer.unweighted for stage in model.stages for block in stage.blocks)


def randomized(**kwargs) -> torch.nn.Module:
    model = pointmix.create_model("fec_small", **TINY | dict(layer_scale=1.0) | kwargs).double().eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(p.numel()))
    return model


@pytest.mark.parametrize("kind", ["images", "masked", "cloud"])
def test_reference_form(kind):
    images = torch.rand(2, 3, 72, 56, dtype=torch.float64)
    x = dict(images=images, masked=PointSet.from_images(images, torch.rand(2, 72, 56) < 0.5), cloud=images)[kind]
    layout = "cloud" if kind == "cloud" else "given"
    windows = 1 if kind == "cloud" else (2, 1, 1)
    fast, reference = (randomized(reference=p, layout=layout, pool_windows_per_side=windows) for p in (False, True))
    assert reference.stages[1].reducer.reference and not fast.stages[1].reducer.reference
    results = []
    for model in (fast, reference):
        logits = model(x)
        results.append([logits, *torch.autograd.grad(logits.sum(), [p for p in model.parameters() if p.requires_grad])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_flags_reach_the_arithmetic():
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        default = randomized()(images)
        for flags in (
            dict(windows_per_side=(2, 2, 1, 1)),
            dict(centers_per_side=(5, 5, 2, 2)),
            dict(coords=True, coord_mode="exclusive"),
            dict(pool_windows_per_side=(2, 1, 1)),
        ):
            assert (randomized(**flags)(images) - default).abs().max() > 1e-6, flags
        torch.testing.assert_close(randomized(denominator="count")(images), default)  # without weights they are one


def test_windows_of_pools():
    model = pointmix.create_model("fec_small", **TINY, pool_windows_per_side=(2, 1, 1))
    assert [stage.reducer.windows_per_side for stage in model.stages[1:]] == [2, 1, 1]
    model = pointmix.create_model("fec_small", **TINY, pool_windows_per_side=2)
    assert [stage.reducer.windows_per_side for stage in model.stages[1:]] == [2, 2, 2]
    for bad, message in (((2, 1), "has 2 values for 3 pools"), (0, "must be at least 1"), ("2", "must be a")):
        with pytest.raises(ValueError, match=f"pool_windows_per_side {message}"):
            pointmix.create_model("fec_small", **TINY, pool_windows_per_side=bad)


def test_keep_and_absent_reach_the_pools():
    model = pointmix.create_model("fec_small", **TINY, keep_cells="occupied", absent="nearest")
    assert all(s.reducer.skip.keep_cells == "occupied" and s.reducer.skip.absent == "nearest" for s in model.stages[1:])


def test_start_of_the_weights():
    model = pointmix.create_model("fec_small", depths=(1, 1, 1, 1))
    pool = model.stages[2].reducer
    for linear in (pool.query, pool.value):  # the default of a 1x1 convolution
        assert 0.95 * 64**-0.5 < linear.weight.abs().max() <= 64**-0.5 and (linear.bias != 0).any()


def test_optimizers_leave_the_choice_alone():
    model = pointmix.create_model("fec_small", **TINY).train()
    before = model.stages[1].reducer.query.weight.clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    model(torch.rand(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert torch.equal(model.stages[1].reducer.query.weight, before)
    assert all((p != 0).any() for p in model.stages[1].reducer.parameters())


def test_no_weights_are_hosted():
    with pytest.raises(ValueError, match="fec_base: no weights are hosted.*load_reference"):
        pointmix.create_model("fec_base", pretrained=True)


def test_names():
    assert pointmix.list_models("fec_*") == ["fec_base", "fec_large", "fec_small"]
