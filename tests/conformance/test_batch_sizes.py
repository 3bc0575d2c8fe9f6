"""A compiled or exported model serves any number of images of its size."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import pointmix

SIZES = [(64, 64), (50, 44)]  # views of equal windows, and gathered ones


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def model_of(name: str, **kwargs) -> torch.nn.Module:
    return pointmix.create_model(name, **dict(depths=(1, 1, 1, 1), layer_scale=1.0, num_classes=10) | kwargs).eval()


def check(model: torch.nn.Module, size: tuple[int, int], how: str, backend: str = "eager") -> None:
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=how == "dynamic" or None)
    with torch.no_grad():
        for batch in (2, 3, 5):
            x = torch.randn(batch, 3, *size)
            if how == "marked":
                torch._dynamo.mark_dynamic(x, 0)
            torch.testing.assert_close(compiled(x), model(x))
    assert counter.frame_count == 1


@pytest.mark.parametrize("size", SIZES, ids=["even", "uneven"])
@pytest.mark.parametrize("name", ["coc_tiny", "fec_small", "hcformer_tiny"])
def test_one_graph_for_all_batch_sizes(name, size):
    check(model_of(name), size, "dynamic")


def test_one_graph_where_only_the_batch_is_marked():
    check(model_of("coc_tiny"), SIZES[0], "marked")
