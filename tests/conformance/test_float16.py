"""float16, by autocast or of the model itself, gives what float32 gives, on whatever windows and centers there are."""

from __future__ import annotations

import pytest
import torch

import pointmix
from pointmix import PointSet

MODELS = ("coc_tiny", "coc_tiny2", "coc_tiny_plain", "fec_small", "hcformer_tiny")
CLOUDS = {
    "coc_tiny": dict(stem=(4, 2, 0), windows_per_side=(4, 2, 1, 1)),
    "fec_small": dict(stem=(4, 2, 0), windows_per_side=(4, 2, 1, 1)),
    "hcformer_tiny": dict(coords=True, rel_pos="offset"),
}


def model_of(name: str, **kwargs) -> torch.nn.Module:
    torch.manual_seed(1)
    return pointmix.create_model(name, num_classes=10, depths=(1, 1, 1, 1), **kwargs).eval()


def images(kind: str) -> PointSet:
    """Images whose windows all have all centers, and such that some lack them."""
    size = {"grid": (64, 64), "uneven": (37, 53), "small": (20, 20), "tiny": (5, 5)}.get(kind, (64, 64))
    x, mask = torch.randn(2, 3, *size), torch.rand(64, 64) < 0.3
    return PointSet.from_images(x, [mask, mask & (torch.arange(64) < 32)] if kind == "partial" else None)


def cloud() -> PointSet:
    """At places that float16 can say: which points are neighbors must not be what changes."""
    return PointSet.cat([PointSet.from_points(torch.randn(n, 3).half().float()) for n in (300, 77)])


def assert_equals_float32(model: torch.nn.Module, points: PointSet) -> None:
    """To 1e-3; where points join the centers of a whole image to be pooled, one between two may join the other one."""
    tolerance = 2e-2 if "fec" in str(model.default_cfg["architecture"]) else 1e-3
    with torch.no_grad():
        expected = model(points)
        with torch.autocast("cpu", torch.float16):
            mixed = model(points)
        half = model.half()(points.to(torch.float16))
    assert mixed.dtype == half.dtype == torch.float16
    for found in (mixed, half):
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["grid", "uneven", "small", "tiny", "partial"])
@pytest.mark.parametrize("name", MODELS)
def test_images(name, kind):
    assert_equals_float32(model_of(name), images(kind))


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds(name):
    assert_equals_float32(model_of(name, in_chans=0, coord_dims=3, **CLOUDS[name]), cloud())


@pytest.mark.parametrize("name", ["pointmlp_elite", "pointmlp_coc"])
def test_clouds_of_groups(name):
    torch.manual_seed(1)
    assert_equals_float32(pointmix.create_model(name, num_classes=10).eval(), cloud())


@pytest.mark.parametrize("name", MODELS)
def test_blocks_that_matter(name):
    """With layer scales of one a point between two centers may join the other one: judge by the median."""
    model, points = model_of(name, layer_scale=1.0), images("partial")
    with torch.no_grad():
        expected = model(points)
        with torch.autocast("cpu", torch.float16):
            error = (model(points).float() - expected).abs()
    assert error.median() < 2e-3 * expected.abs().max() and error.max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("name", ["coc_tiny", "fec_small", "hcformer_tiny"])
def test_gradients(name):
    model, points = model_of(name, layer_scale=1.0), images("partial")
    weights = [p for p in model.parameters() if p.requires_grad]
    gradients = []
    for half in (False, True):
        with torch.autocast("cpu", torch.float16, enabled=half):
            loss = model(points).float().square().mean()
        gradients.append(torch.autograd.grad(loss, weights))
    assert all(g.isfinite().all() for g in gradients[1])
    near = [(a - b).norm() < 0.05 * a.norm() for a, b in zip(*gradients, strict=True)]
    assert sum(near) > 0.9 * len(near)


@pytest.mark.parametrize("name", ["coc_tiny", "hcformer_tiny"])
def test_what_is_explained_is_what_is_computed(name):
    """Which center a point joins is decided in float32 there too."""
    model, points = model_of(name), images("small")
    with torch.no_grad():
        expected = model.explain(points)
        with torch.autocast("cpu", torch.float16):
            found = model.explain(points)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.weight.float(), b.weight, rtol=1e-2, atol=1e-2)
        assert (a.center == b.center).double().mean() > 0.95
