from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pointmix.nn.residual import LinearNorm, Residual


def trained(module: torch.nn.Module) -> torch.nn.Module:
    """With normalizations that do something."""
    for key, value in module.double().state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point() and ".norm" in f".{key}":
            value.normal_()
    return module.eval()


@pytest.mark.parametrize("bias", [False, True])
def test_folded_is_the_same_map(bias):
    layer, x = trained(LinearNorm(5, 7, bias=bias)), torch.randn(9, 5, dtype=torch.float64)
    torch.testing.assert_close(F.linear(x, *layer.folded()), layer(x))


@pytest.mark.parametrize("ratio, hidden", [(1.0, 8), (0.25, 2)])
def test_is_the_equation(ratio, hidden):
    block, x = trained(Residual(8, ratio=ratio)), torch.randn(9, 8, dtype=torch.float64)
    assert block.layer1.linear.weight.shape == (hidden, 8)
    expected = F.relu(x + block.layer2(F.relu(block.layer1(x))))
    torch.testing.assert_close(block(x), expected)
    torch.testing.assert_close(block.folded()(x.clone()), expected)
    with torch.no_grad():
        torch.testing.assert_close(block.folded()(x.clone()), expected)


def test_folded_has_the_same_gradients():
    block, x = trained(Residual(8, ratio=1)), torch.randn(9, 8, dtype=torch.float64, requires_grad=True)
    inputs = [x, *block.parameters()]
    gradients = [torch.autograd.grad(run(x).square().sum(), inputs) for run in (block, block.folded())]
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_folded_under_autocast():
    block, x = trained(Residual(8, ratio=1)).float(), torch.randn(9, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(block.folded()(x.clone()).float(), block(x).float(), rtol=0.1, atol=0.1)


def test_training_normalizes_over_the_batch():
    layer = LinearNorm(5, 7).double()
    y = layer(torch.randn(100, 5, dtype=torch.float64))
    torch.testing.assert_close(y.mean(0), torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-6)
    assert (layer.norm.running_mean != 0).all()


def test_a_batch_of_one_is_named_in_training():
    layer = LinearNorm(3, 4)
    with pytest.raises(ValueError, match="more than 1 value .* expected a batch_size of at least 2, and no last batch"):
        layer(torch.randn(1, 3))
    assert layer(torch.randn(2, 3)).shape == (2, 4) and layer.eval()(torch.randn(1, 3)).shape == (1, 4)


@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
def test_trains_as_the_layers_do(momentum):
    """Values, gradients and running statistics are those of nn.BatchNorm1d, with and without a compiled form."""
    block, x = Residual(8, ratio=1).double(), torch.randn(60, 8, dtype=torch.float64, requires_grad=True)
    block.layer1.norm.momentum = block.layer2.norm.momentum = momentum
    written = copy.deepcopy(block)
    for _ in range(2):
        expected = F.relu(x + written.layer2(F.relu(written.layer1(x))))
        found = block(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(block.state_dict(), written.state_dict())
    pairs = (found, [x, *block.parameters()]), (expected, [x, *written.parameters()])
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), inputs) for y, inputs in pairs))


def test_other_norms_normalize_by_themselves():
    block, x = Residual(8, ratio=1), torch.randn(60, 8)
    assert "NormReLU" in type(block(x).grad_fn).__name__
    block.layer1.norm = block.layer2.norm = nn.BatchNorm1d(8, affine=False, track_running_stats=False)
    torch.testing.assert_close(block(x), F.relu(x + block.layer2(F.relu(block.layer1(x)))))
