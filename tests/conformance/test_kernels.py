"""With the fused kernels on, networks give what they give without them, so that goldens and laws hold for both. On the
CPU the kernels are in Triton's interpreter, so all is small; float64, as for goldens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pointmix import PointSet
from pointmix.ops import use_backend
from pointmix.ops.dispatch import OPERATIONS
from tests.conformance.test_laws import F64, model_of, trained

pytest.importorskip("triton", reason="triton is not installed")
triton_cluster = pytest.importorskip("pointmix.ops.clustering.triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SETTINGS = dict(windows_per_side=(2, 2, 1, 1), heads=(1, 1, 2, 2))
SMALL = {  # see test_triton.py for CoC-Tiny, narrow
    "coc_tiny2": SETTINGS | dict(centers_per_side=(4, 2, 3, 2)),
    "hcformer_tiny": SETTINGS
    | dict(centers_per_side=(4, 2, 4, 4)),  # its 7 x 7 of stage 3 do not fit a kernel in float64
    "fec_small": SETTINGS,
}
# one a stage and branch; none for the upper branch of stage 3, whose only center has weight one
CALLS = dict.fromkeys(SMALL, ["cluster_hard"] * 4) | {"hcformer_tiny": ["cluster_soft"] * 6}


def inputs(kind: str) -> torch.Tensor | PointSet:
    if kind == "grid":
        return torch.randn(1, 3, 24, 40, **F64)
    images = torch.randn(2, 3, 24, 40, **F64)
    masks = [torch.rand(24, 40) < 0.4, torch.zeros(24, 40, dtype=torch.bool)]
    masks[1][3:5, 7] = True  # two pixels
    return PointSet.from_images(list(images), masks)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The kernels that were called."""
    made = []

    def counted(op: str, kernel: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*args, **kwargs) -> torch.Tensor:
            made.append(op)
            return kernel(*args, **kwargs)

        return call

    for op in ("cluster_hard", "cluster_soft"):
        monkeypatch.setitem(OPERATIONS[op].functions, "triton", counted(op, getattr(triton_cluster, op)))
    return made


@pytest.mark.filterwarnings("ignore:invalid value")  # NumPy's, in the interpreter
@pytest.mark.parametrize("kind", ["grid", "ragged"])
@pytest.mark.parametrize("name", SMALL)
def test_networks_do_not_notice(name, kind, calls):
    model, x = model_of(name, **SMALL[name]).to(DEVICE), inputs(kind).to(DEVICE)
    found = []
    for backend in ("torch", "triton"):
        with use_backend(backend):
            logits = model(x)
            grads = torch.autograd.grad(logits.square().sum(), trained(model), allow_unused=True)
        found.append([logits, *(g for g in grads if g is not None)])
        assert backend == "triton" or not calls
    assert calls == CALLS[name]  # no window was left to products
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9)
