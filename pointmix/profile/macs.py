"""Parameters and multiply-adds, counted by the equations that papers count by, not by what our kernels run.

Our ops work values out at the centers and MLPs in pieces, which no published figure does. So every module says itself
what its reference form takes: a mixer or a reducer has

    macs(size: Size) -> Macs

and a block adds up its own; layers that map rows one by one take the number of rows instead. A mixer of a new family
needs nothing else to be counted.

Conventions. A multiply-add is one operation. `linear` is convolutions and linear maps alone. `products` is matrix
products of activations. `other` is as the fvcore library counts by default: 5 for each number that group or layer
normalization gives, 2 for batch normalization in evaluation, 1 for each number that adaptive average pooling reads or
nearest up-sampling gives. Element-wise sums and products, activations and plain means count nothing. Biases are free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pointmix.layouts.grid import Grid
from pointmix.layouts.plan import Plan
from pointmix.pointset import PointSet

GROUP_NORM, BATCH_NORM = 5, 2  # operations a number


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one input, see the module's text."""

    linear: int = 0
    products: int = 0
    other: int = 0

    def __add__(self, more: Macs) -> Macs:
        return Macs(self.linear + more.linear, self.products + more.products, self.other + more.other)

    @property
    def multiplied(self) -> int:
        """Convolutions, linear maps and matrix products."""
        return self.linear + self.products

    @property
    def total(self) -> int:
        """What fvcore calls the total."""
        return self.linear + self.products + self.other


@dataclass(frozen=True)
class Size:
    """What the modules of a stage meet in one input.

    Args:
        before: points that come into its reducer.
        points: points that leave it, which the blocks keep.
        slots: points in the windows, more than `points` where a lattice is continued by reflection to fill them.
        windows: of the whole set.
        centers: of each window.
        global_centers: of the windows themselves, 0 where these are not clustered.
        side: rows and columns where the points are a full lattice.
    """

    before: int
    points: int
    slots: int
    windows: int
    centers: int
    global_centers: int = 0
    side: tuple[int, int] | None = None

    @classmethod
    def of(cls, before: int, points: PointSet, plan: Plan) -> Size:
        """That of a plan."""
        rows = plan.window_partition(plan.to_window_order(points.pos))
        windows = len(plan.pool_centers(rows))
        slots = rows.shape[0] * rows.shape[1] if plan.valid is None else int(plan.valid.sum())
        global_centers = 0 if plan.upper is None else plan.upper.centers
        side = points.layout.size if isinstance(points.layout, Grid) else None
        return cls(before, len(points.pos), slots, windows, plan.centers, global_centers, side)


@dataclass(frozen=True)
class Part:
    """A stage, or what comes before or after the stages."""

    name: str
    channels: int
    parameters: int
    macs: Macs
    size: Size | None = None


def linear_macs(rows: int, *layers: nn.Linear | nn.Conv2d) -> Macs:
    """Linear maps of so many rows, or convolutions of groups=1 with so many outputs a channel."""
    return Macs(linear=rows * sum(layer.weight.numel() for layer in layers))


def norm_macs(rows: int, dim: int) -> Macs:
    """Group normalization of so many rows."""
    return Macs(other=GROUP_NORM * rows * dim)


def parameters(*modules: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for module in modules for p in module.parameters())


@torch.no_grad()
def count(model: nn.Module, x: Tensor | PointSet) -> list[Part]:
    """The parts of one of our models, in order, for an input that is one image or cloud; they add up to the model.

    Lattices count as full inside each kernel, as they do in the papers.

    Raises:
        ValueError: if it is another model, or the input is not one set.
    """
    if not has_stages(model):
        raise ValueError(f"{type(model).__name__} has no stages of ours; see count_layers")
    points = model.as_points(x)
    if points.num_sets != 1:
        raise ValueError(f"count takes one input, got a batch of {points.num_sets}")
    return list((_backbone if hasattr(model.stages[0], "plan") else _pointmlp)(model, points))


def has_stages(model: nn.Module) -> bool:
    """Whether `count` can count it."""
    return hasattr(model, "as_points") and hasattr(model, "stages")


@torch.no_grad()
def count_layers(model: nn.Module, x: Tensor) -> Macs:
    """`linear` and `products` of any network, as it runs on `x`, a batch of one; `other` is not counted."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(x)
    flops = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    linear = sum(n for op, n in flops.items() if op.split(".")[1] in ("convolution", "_convolution", "addmm", "mm"))
    return Macs(linear=linear // 2, products=(sum(flops.values()) - linear) // 2)


def total(parts: list[Part]) -> Macs:
    """Multiply-adds of all parts."""
    return sum((part.macs for part in parts), Macs())


def _backbone(model: nn.Module, points: PointSet) -> Iterator[Part]:
    """Parts of a `PointBackbone`; only its reducers run."""
    sizes = []
    for i, stage in enumerate(model.stages):
        before, points = len(points.pos), stage.reducer(points)
        size = Size.of(before, points, stage.plan(points))
        sizes.append(size)
        macs = sum((block.macs(size) for block in stage.blocks), stage.reducer.macs(size))
        yield Part(f"stage {i + 1}", points.feat.shape[1], parameters(stage), macs, size)
    macs = Macs()
    norms = model.norm if isinstance(model.norm, nn.ModuleList) else [model.norm]
    for norm, size in zip(norms, sizes[-len(norms) :], strict=True):
        macs += norm_macs(size.points, sum(p.numel() for p in norm.parameters()) // 2)  # an Identity has none
    if isinstance(model.head, nn.Linear):
        macs += linear_macs(1 if model.global_pool == "avg" else sizes[-1].points, model.head)
    yield Part("norm, head", model.num_features, parameters(model.norm, model.head), macs)


def _pointmlp(model: nn.Module, points: PointSet) -> Iterator[Part]:
    """Parts of a `PointMLP`; nothing runs."""
    before = len(points.pos)
    yield Part("embedding", model.stem.linear.out_features, parameters(model.stem), model.stem.macs(before))
    for i, stage in enumerate(model.stages):
        after = max(before // 2, 1)
        size = Size(before, after, slots=after * stage.neighbors, windows=after, centers=stage.centers)
        search = Macs(products=after * before * model.coord_dims)  # squared distances
        channels = stage.transfer.linear.out_features
        yield Part(f"stage {i + 1}", channels, parameters(stage), stage.macs(size) + search, size)
        before = after
    layers = sum((layer.macs(1) for layer in model.mlp), Macs())
    if isinstance(model.head, nn.Linear):
        layers += linear_macs(1, model.head)
    yield Part("head", model.head_hidden_size, parameters(model.mlp, model.head), layers)
