"""The parts of one of our networks, each a task of its own on the input that it has in the network; see stages.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pointmix import PointSet
from pointmix.nn.block import _autocast
from pointmix.nn.norm import SetIndex
from pointmix.nn.stage import Stage
from pointmix.ops.mlp import mlp


@dataclass
class Part:
    """A part of a network.

    Args:
        stage, name: "stage 1", "mixer".
        calls: in a step of the network.
        task: one call, with gradients where they are enabled.
        macs: multiply-adds of a call: linear maps, convolutions and matrix products of the forward pass.
        operations: two for each, and with gradients as many again for those of the weights, and of the input if it
            has some.
        moved: bytes that a call moves at least, see `moved`.
    """

    stage: str
    name: str
    calls: int
    task: Callable[[], None]
    macs: float
    operations: float
    moved: int


def parts(model: nn.Module, x: Tensor | PointSet) -> list[Part]:
    """All parts of a network on images (B, C, H, W) or points; gradients of one do not reach those before."""
    found: list[Part] = []

    def run(stage: str, name: str, call: Callable, *given: Tensor, of: tuple[nn.Module, ...] = (), calls: int = 1):
        """What `call` returns for these features, noted as a part with the weights of the modules `of`."""
        given = tuple(t.detach().requires_grad_(t.requires_grad) for t in given)
        out, weights = call(*given), tuple(p for module in of for p in module.parameters())
        if not given or out is not given[0]:  # there is no order of a single window
            gradients = [torch.randn_like(t) for t in features(out) if t.requires_grad]
            passes = 1 + bool(gradients) + any(t.requires_grad for t in given)
            task, macs = partial(step, call, given, weights, gradients), macs_of(call, given)
            found.append(Part(stage, name, calls, task, macs, 2 * macs * passes, moved(given, features(out), weights)))
        return out

    if isinstance(x, Tensor):
        points = run("", "input", model.as_points, x)
    else:
        points = run("", "input", lambda feat: model.as_points(x.with_feat(feat)), x.feat)
    for i, stage in enumerate(model.stages, 1):
        points = of_stage(partial(run, f"stage {i}"), stage, points)

    def head(feat: Tensor) -> Tensor:
        return model.forward_head(points.with_feat(model.norm(feat, SetIndex.of(points))))

    run("", "head", head, points.feat, of=(model.norm, model.head))
    return found


def of_stage(run: Callable, stage: Stage, before: PointSet) -> PointSet:
    """`Stage.forward` and `Block.forward` part by part; what it returns is as if the first block were the only one."""
    points = run("reducer", lambda feat: stage.reducer(before.with_feat(feat)), before.feat, of=(stage.reducer,))
    (plan, *_), sets = run("plan", lambda: (stage.plans(points), SetIndex.of(points)))
    x = run("order", plan.to_window_order, points.feat)
    block = stage.blocks[0]
    w1, w2, gamma = block.mlp.fc1, block.mlp.fc2, block.scale2.gamma
    run_block = partial(run, calls=len(stage.blocks))
    x, y = run_block("norm1", lambda x: (x, _autocast(block.norm1(x, sets))), x, of=(block.norm1,))
    y = run_block("mixer", lambda y: block.mixer(y, plan, sets), y, of=(block.mixer,))
    x, y = run_block("add, norm2", lambda x, y: block._add_and_norm(x, y, sets), x, y, of=(block.scale1, block.norm2))
    x = run_block(
        "mlp", lambda x, y: mlp(_autocast(y), w1.weight, w1.bias, w2.weight, w2.bias, gamma, plus=x), x, y,
        of=(block.mlp, block.scale2),
    )  # fmt: skip
    return points.with_feat(run("back", plan.from_window_order, x))


def features(out: object) -> list[Tensor]:
    """The features among what a part returns."""
    out = [each.feat if isinstance(each, PointSet) else each for each in (out if isinstance(out, tuple) else (out,))]
    return [each for each in out if isinstance(each, Tensor)]


def step(call: Callable, given: tuple[Tensor, ...], weights: tuple[Tensor, ...], gradients: list[Tensor]) -> None:
    """Forward, and backward if there are gradients of what comes out."""
    out = features(call(*given))
    if gradients:
        wanted = [t for t in (*given, *weights) if t.requires_grad]
        torch.autograd.grad(out, wanted, gradients, allow_unused=True)


def macs_of(call: Callable, given: tuple[Tensor, ...]) -> float:
    """Multiply-adds of a call."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call(*given)
    return counter.get_total_flops() / 2


def moved(given: tuple[Tensor, ...], out: list[Tensor], weights: tuple[Tensor, ...]) -> int:
    """Bytes that are moved at least: input and weights are read once and the output is written once. With gradients,
    input, weights and the gradient of the output are read once more, and those of input and weights are written."""
    written = [t for t in out if all(t is not each for each in given)]  # norm1 returns its input too
    tensors = [*given, *weights, *written]
    if any(t.requires_grad for t in out):
        tensors += [*given, *weights, *out, *(t for t in given if t.requires_grad), *weights]
    return sum(t.nbytes for t in tensors)
