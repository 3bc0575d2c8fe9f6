from __future__ import annotations

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import pointmix
from pointmix.engine.compile import compile_network

SMALL = dict(
    depths=(3,), dims=(192,), heads=2, head_dim=24, mlp_ratios=(1,), windows_per_side=(2,), centers_per_side=(2,),
    num_classes=3, layer_scale=0.5,
)  # fmt: skip


@pytest.fixture
def counter(monkeypatch):
    """Makes graphs and gradients, but no code, and counts the graphs."""
    torch.compiler.reset()
    counter, compile_ = CompileCounterWithBackend("aot_eager"), torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda m, **kw: compile_(m, backend=counter, fullgraph=True, **kw))
    yield counter
    torch.compiler.reset()


def test_equal_blocks_share_a_graph(counter):
    model = pointmix.create_model("coc_tiny", drop_path_rate=0.1, **SMALL)
    compiled, x, found = copy.deepcopy(model), torch.randn(2, 3, 32, 32), []
    compile_network(compiled)
    for network in (model.eval(), compiled.eval()):
        y = network(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [p for p in network.parameters() if p.requires_grad])])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)
    assert counter.frame_count == 1
    compiled.train()(x)
    assert counter.frame_count == 3  # two more: without stochastic depth, and with any rate of it


def test_a_network_without_blocks_is_compiled_whole(counter):
    class Network(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).relu()

    model = Network(3, 4)
    compile_network(model)
    model(torch.randn(2, 3))
    assert counter.frame_count == 1
