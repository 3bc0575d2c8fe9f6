"""A step on images asks for no number of a tensor and copies nothing from the host: either makes a GPU wait."""

from __future__ import annotations

import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pointmix
from pointmix import PointSet
from pointmix.ops import use_backend

MODELS = [name for name in pointmix.list_models() if timm.get_pretrained_cfg(name).input_size]  # that take images
ASKS = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "nonzero_static", "argwhere",
    "masked_select", "unique_dim", "unique_consecutive", "_unique", "_unique2", "bincount", "histc",
}  # fmt: skip
COPIES = {"lift_fresh", "lift_fresh_copy", "_pin_memory", "set_"}


class Waits(TorchDispatchMode):
    """What would make a GPU wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_", "_unsafe_index") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        counts = name == "repeat_interleave" and kwargs.get("output_size") is None and "Tensor" in func._overloadname
        if name in ASKS | COPIES or masks or counts:
            self.found.append(str(func))
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Only on a CPU, where that waits for nobody, does a PointSet look at its ptr, and only there numba compiles."""
    monkeypatch.setattr("pointmix.io.validate.traced", lambda x: True)
    with use_backend("torch"):
        yield


def step(model: torch.nn.Module, x: torch.Tensor | PointSet) -> list[str]:
    """A training step, then inference; the first of a size builds what depends on the size."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    with Waits() as waits:
        torch.autograd.grad(model.train()(x).square().sum(), parameters, allow_unused=True)
        with torch.inference_mode():
            model.eval()(x)
    return waits.found


@pytest.mark.parametrize("size", [(64, 64), (50, 44)], ids=["even", "uneven"])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_on_images_makes_no_gpu_wait(name, size):
    model, x = pointmix.create_model(name, depths=(1, 1, 1, 1), num_classes=10), torch.randn(2, 3, *size)
    step(model, x)
    assert step(model, x) == []


@pytest.mark.parametrize(
    "name, flags",
    [
        ("hcformer_nano", dict(hierarchy="shift", depths=(2, 2, 1, 1))),
        ("hcformer_nano", dict(rel_pos="offset")),
        ("hcformer_nano", dict(pad="always", coords=True, cat_norm=True)),
        ("coc_tiny", dict(drop_path_rate=0.2, drop_rate=0.1, depths=(2, 1, 1, 1))),
        ("coc_tiny", dict(center_updates=2)),
        ("coc_tiny", dict(denominator="count")),
    ],
    ids=str,
)
def test_nor_does_one_with(name, flags):
    model = pointmix.create_model(name, **dict(depths=(1, 1, 1, 1), num_classes=10) | flags)
    x = torch.randn(2, 3, 50, 44)
    step(model, x)
    assert step(model, x) == []


def test_what_waits_is_seen():
    model = pointmix.create_model("coc_tiny", depths=(1, 1, 1, 1), num_classes=10)
    points = PointSet.from_batch(torch.randn(2, 3, 64, 64)).as_sparse()
    step(model, points)
    assert {"aten.nonzero.default", "aten._local_scalar_dense.default"} <= set(step(model, points))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", MODELS)
def test_a_step_on_a_gpu_does_not_wait(name):
    model = pointmix.create_model(name, depths=(1, 1, 1, 1), num_classes=10).cuda()
    x = torch.randn(2, 3, 64, 64, device="cuda")
    model(x).square().sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(x).square().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
