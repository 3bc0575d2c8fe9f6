from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointmix import PointSet
from pointmix.nn.block import Block, LayerScale, SetDropPath
from pointmix.nn.mixers.context import ContextCluster
from pointmix.nn.norm import SetIndex


def block_of(mixer=True, **kwargs) -> Block:
    mixer = ContextCluster(6, heads=2, head_dim=3) if mixer else None
    settings = dict(mlp_ratio=4, drop_path=0.0, layer_scale=0.7) | kwargs
    return Block(6, mixer, **settings).double()


def sets_of_points(ragged: PointSet):
    points = ragged.with_feat(torch.randn(len(ragged.feat), 6, dtype=torch.float64))
    return points.feat, points.layout.plan(points.pos.double(), points.ptr, 2, 2), SetIndex.of(points)


@pytest.mark.parametrize("mixer", [True, False])
def test_is_two_residual_branches(mixer, ragged):
    block, (x, plan, sets) = block_of(mixer), sets_of_points(ragged)
    mixed = block.norm1(x, sets)
    mixed = block.mixer(mixed, plan) if mixer else mixed
    y = x + 0.7 * mixed
    hidden = F.gelu(F.linear(block.norm2(y, sets), block.mlp.fc1.weight, block.mlp.fc1.bias))
    y = y + 0.7 * F.linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)
    torch.testing.assert_close(block(x, plan, sets), y)


def test_both_scales_count_on_their_own(ragged):
    block, (x, plan, sets) = block_of(), sets_of_points(ragged)
    with torch.no_grad():
        block.scale1.gamma.zero_()
        block.scale2.gamma.zero_()
    assert torch.equal(block(x, plan, sets), x)


@pytest.mark.parametrize("dim, expected", [(32, 26_306), (64, 85_186)])
def test_parameters(dim, expected):
    mixer = ContextCluster(dim, heads=4, head_dim=24)
    block = Block(dim, mixer, mlp_ratio=8, drop_path=0.0, layer_scale=1e-5)
    assert sum(p.numel() for p in block.parameters()) == expected
    assert (block.scale1.gamma == 1e-5).all() and (block.scale2.gamma == 1e-5).all()


def test_layer_scale_is_per_channel():
    scale = LayerScale(3, 1.0)
    scale.gamma.data = torch.tensor([1.0, 2.0, 3.0])
    assert scale(torch.full((2, 3), 0.5), torch.ones(2, 3)).tolist() == [[1.5, 2.5, 3.5], [1.5, 2.5, 3.5]]


@pytest.mark.parametrize("kind", ["grid", "ragged", "compiled"])
def test_drop_path_drops_whole_sets(kind):
    size = (40, 2, 3)
    points = PointSet.from_images(torch.randn(40, 2, 2, 3))
    points = points.as_sparse() if kind == "ragged" else points
    drop, sets = SetDropPath(0.4).train(), SetIndex.of(points)
    run = torch.compile(drop, backend="eager", fullgraph=True) if kind == "compiled" else drop
    out = run(torch.ones(len(points.feat), 5), sets).view(size[0], -1)
    assert (out == out[:, :1]).all()  # one fate for all points and channels of a set
    kept = out[:, 0] > 0
    assert 0 < kept.sum() < 40 and torch.allclose(out[kept], torch.tensor(1 / 0.6))
    drop.eval()
    assert torch.equal(drop(points.feat, sets), points.feat)
    assert torch.equal(SetDropPath(0.0).train()(points.feat, sets), points.feat)


def test_both_branches_drop_by_themselves(ragged):
    """With the branches dropped half the time each, four outcomes exist."""
    block, (x, plan, sets) = block_of(drop_path=0.5).train(), sets_of_points(ragged)
    outcomes = {round(block(x, plan, sets)[:1].sum().item(), 9) for _ in range(60)}
    assert len(outcomes) >= 4


def test_keeps_no_sum_before_the_second_norm():
    points = PointSet.from_images(torch.randn(3, 6, 4, 4))
    plan, sets = points.layout.plan(points.pos, points.ptr, 2, 2), SetIndex.of(points)
    x, kept, found = points.feat.requires_grad_(), [], []
    for reference in (False, True):
        torch.manual_seed(0)
        block = Block(6, None, mlp_ratio=4, drop_path=0.0, layer_scale=0.7, reference=reference)
        saved: set[int] = set()
        with torch.autograd.graph.saved_tensors_hooks(lambda t, to=saved: to.add(t.data_ptr()) or t, lambda t: t):
            h, y = block._add_and_norm(x, block.norm1(x, sets), sets)
        kept.append(h.data_ptr() in saved)
        found.append(torch.autograd.grad(block(x, plan, sets).square().sum(), [x, block.norm2.weight]))
    assert kept == [False, True]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["scale1", "norm2"])
def test_hooks_and_other_modules_take_part_in_training(name):
    points = PointSet.from_images(torch.randn(3, 6, 4, 4))
    plan, sets = points.layout.plan(points.pos, points.ptr, 2, 2), SetIndex.of(points)
    block = Block(6, None, mlp_ratio=4, drop_path=0.0, layer_scale=0.7)
    handle = getattr(block, name).register_forward_hook(lambda module, args, output: torch.full_like(output, 2))
    hooked = block(points.feat, plan, sets)
    handle.remove()

    class Twos(nn.Module):
        def forward(self, x: Tensor, _: object) -> Tensor:
            return torch.full_like(x, 2)

    setattr(block, name, Twos())
    torch.testing.assert_close(block(points.feat, plan, sets), hooked)
    assert hooked.requires_grad
