"""With the fused kernels on, networks give what they give without them, so that goldens and laws hold for both. On the
CPU the kernels are in Triton's interpreter, so all is small; float64, as for goldens."""

from __future__ import annotations

import pytest
import torch

from pointmix import PointSet
from pointmix.ops import use_backend
from pointmix.ops.choice import fused
from tests.conformance.test_laws import F64, model_of, trained

pytest.importorskip("triton")
SMALL = {
    "coc_tiny": dict(folds=(2, 2, 1, 1)),
    "coc_tiny2": dict(folds=(2, 2, 1, 1), centers=(4, 2, 3, 2)),
    "hcformer_tiny": dict(folds=(2, 2, 1, 1)),
    "fec_small": dict(folds=(2, 2, 1, 1)),
}


def inputs(kind: str) -> torch.Tensor | PointSet:
    images = torch.randn(2, 3, 24, 40, **F64)
    if kind == "grid":
        return images
    masks = [torch.rand(24, 40) < 0.4, torch.zeros(24, 40, dtype=torch.bool)]
    masks[1][3:5, 7] = True  # two pixels
    return PointSet.from_images(list(images), masks)


@pytest.mark.filterwarnings("ignore:invalid value")  # NumPy's, in the interpreter
@pytest.mark.parametrize("kind", ["grid", "ragged"])
@pytest.mark.parametrize("name", SMALL)
def test_networks_do_not_notice(name, kind):
    model, x = model_of(name, **SMALL[name]), inputs(kind)
    found = []
    for backend in ("torch", "triton"):
        with use_backend(backend):
            assert fused("cluster_hard", torch.empty(0, **F64), 4, 24) == (backend == "triton")
            logits = model(x)
            grads = torch.autograd.grad(logits.square().sum(), trained(model), allow_unused=True)
        found.append([logits, *(g for g in grads if g is not None)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9)
