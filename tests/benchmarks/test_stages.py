"""The parts of a network: together they are all of it."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch

NAMES = ("coc_tiny", "hcformer_tiny", "fec_small", "coc_tiny (quarter)")


@pytest.fixture
def built(program):
    """Makes a network, and what it takes: two images of 64 pixels."""
    return lambda name: program("image_models").build(name, Namespace(batch=2, size=64, device="cpu"))


@pytest.mark.parametrize("name", NAMES)
def test_parts_have_all_multiply_adds_and_weights(program, built, name):
    model, x = built(name)
    found = program("parts").parts(model.train(), x)
    with torch.no_grad(), torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        model(x)
    assert sum(part.macs * part.calls for part in found) == counter.get_total_flops() / 2
    numbers = [sum(w.numel() for w in part.task.args[2]) * part.calls for part in found]
    assert sum(numbers) == sum(w.numel() for w in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_networks_with_one_block_a_stage_give_what_the_network_gives(program, built, name, monkeypatch):
    model, x = built(name)
    for stage in model.stages:
        stage.blocks = stage.blocks[:1]
    with torch.inference_mode():
        found = program("parts").parts(model.eval(), x)
        call, given, *_ = found[-1].task.args
        torch.testing.assert_close(call(*given), model(x))


def test_gradients_of_a_part_reach_its_input_and_weights(program):
    parts = program("parts")
    layer = torch.nn.Linear(3, 5)
    x = torch.randn(7, 3, requires_grad=True)
    weights, seen = tuple(layer.parameters()), []
    for t in (x, *weights):
        t.register_hook(lambda gradient: seen.append(tuple(gradient.shape)))
    parts.step(layer, (x,), weights, [torch.ones(7, 5)])
    assert sorted(seen) == [(5,), (5, 3), (7, 3)]
    assert x.grad is None and layer.weight.grad is None


def test_bytes_that_are_moved_at_least(program):
    moved = program("parts").moved
    weight, x = torch.zeros(5, 3, requires_grad=True), torch.zeros(7, 3)
    y = x @ weight.T
    assert moved((x,), [y.detach()], (weight,)) == 4 * (21 + 15 + 35)
    assert moved((x,), [y], (weight,)) == 4 * (21 + 15 + 35 + 21 + 15 + 35 + 15)  # images need no gradient
    x.requires_grad_()
    assert moved((x,), [x, y], (weight,)) == 4 * (21 + 15 + 35 + 21 + 15 + 21 + 35 + 21 + 15)


def test_sums_and_floors(program):
    part = program("parts").Part
    found = [part("stage 1", "mlp", 3, None, 5e9, 1e10, 2**20), part("", "head", 1, None, 0, 0, 2**21)]
    table = program("stages").table(found, [1.0, 0.5], 4.0, 1e10, 2**20)
    assert table["stage 1", "mlp", 3] == pytest.approx(
        {"ms": 3000, "GMAC": 15, "by GMAC": 3000, "MiB": 3, "by MiB": 3000, "floor": 3000}
    )
    assert table["", "sum", 1] == pytest.approx(
        {"ms": 3500, "GMAC": 15, "by GMAC": 3000, "MiB": 5, "by MiB": 5000, "floor": 5000}
    )
    assert table["", "network", 1]["ms"] == 4000
