"""A compiled or exported model serves any number of images of its size."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import pointmix
from tests.conformance.test_contract import ONE_STAGE, SHALLOW, TWO_LEVELS, TWO_STAGES

SIZES = [(64, 64), (50, 44)]  # views of equal windows, and gathered ones


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def model_of(name: str, **kwargs) -> torch.nn.Module:
    return pointmix.create_model(name, **SHALLOW | kwargs).eval()


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
@pytest.mark.parametrize("name, kwargs", [("fec_small", TWO_STAGES), ("hcformer_tiny", TWO_LEVELS)])
def test_one_graph_for_all_batch_sizes(name, kwargs, size):
    """CoC has FEC's mixers and HCFormer's reducers."""
    check(model_of(name, **kwargs), size, "dynamic")


def test_one_graph_where_only_the_batch_is_marked():
    check(model_of("coc_tiny", **ONE_STAGE), SIZES[0], "marked")


def test_training_compiles_once_for_all_batch_sizes():
    model, counter = model_of("coc_tiny", **ONE_STAGE).train(), CompileCounterWithBackend("aot_eager")
    compiled, parameters, counts = torch.compile(model, backend=counter, fullgraph=True), list(model.parameters()), []
    for batch in (2, 3, 5):
        x = torch.randn(batch, 3, 32, 32)
        torch._dynamo.mark_dynamic(x, 0)
        found, expected = (torch.autograd.grad(m(x).square().sum(), parameters) for m in (compiled, model))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        counts.append(counter.frame_count)
    assert counts == [counts[0]] * 3


def test_another_lattice_is_another_graph():
    """Windows depend on it; what a graph keeps of it are numbers."""
    model, counter = model_of("coc_tiny", **ONE_STAGE), CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for side in (64, 50, 64):
            x = torch.randn(2, 3, side, side)
            torch.testing.assert_close(compiled(x), model(x))
    assert counter.frame_count == 2
