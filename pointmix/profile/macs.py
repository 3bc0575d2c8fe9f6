"""Parameters and multiply-adds of the reference form of a network, as papers count them.

The kernels of this package compute values at the centers and MLPs in chunks, which no published figure accounts for. So
every module gives the cost of its reference form: a mixer or a reducer has

    macs(size: Size) -> Macs

and a block adds up its own; layers that are applied to rows take the number of rows instead. A model has

    parts(points: PointSet) -> Iterator[Part]

Conventions. A multiply-add is one operation. `linear` is convolutions and linear maps. `products` is matrix products of
activations. `other` follows the defaults of the fvcore library: 5 per output of group or layer normalization, 2 per
output of batch normalization in evaluation, 1 per input of adaptive average pooling and per output of nearest-neighbor
up-sampling. Element-wise operations, activations and plain means are not counted, nor are biases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pointmix.layouts.grid import Grid
from pointmix.layouts.plan import Plan
from pointmix.pointset import PointSet

GROUP_NORM, BATCH_NORM = 5, 2  # operations per output


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one input, see the module's docstring."""

    linear: int = 0
    products: int = 0
    other: int = 0

    def __add__(self, other: Macs) -> Macs:
        return Macs(self.linear + other.linear, self.products + other.products, self.other + other.other)

    @property
    def multiplied(self) -> int:
        """Convolutions, linear maps and matrix products."""
        return self.linear + self.products

    @property
    def total(self) -> int:
        """The total as fvcore counts it."""
        return self.linear + self.products + self.other


@dataclass(frozen=True)
class Size:
    """Sizes of a stage for one input.

    Args:
        before: input points of its reducer.
        points: output points of its reducer, which the blocks keep.
        slots: points in the windows; more than `points` where a lattice is padded by reflection to fill them.
        windows: of the whole set.
        centers: per window.
        global_centers: of the windows themselves, 0 if these are not clustered.
        side: rows and columns if the points are a full lattice.
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
    """A stage of a model, or its layers before or after the stages."""

    name: str
    channels: int
    parameters: int
    macs: Macs
    size: Size | None = None


@runtime_checkable
class Countable(Protocol):
    """A model that gives its own multiply-adds."""

    def as_points(self, x: Tensor | PointSet) -> PointSet:
        """The input as a point set."""

    def parts(self, points: PointSet) -> Iterator[Part]:
        """The parts of the model in order, for one set; they add up to the model."""


def linear_macs(rows: int, *layers: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> Macs:
    """Linear maps applied to `rows` rows, convolutions with groups=1 and `rows` output positions, or transposed ones
    with `rows` input positions."""
    return Macs(linear=rows * sum(layer.weight.numel() for layer in layers))


def norm_macs(rows: int, dim: int) -> Macs:
    """Group normalization of `rows` rows."""
    return Macs(other=GROUP_NORM * rows * dim)


def parameters(*modules: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for module in modules for p in module.parameters())


@torch.no_grad()
def count(model: nn.Module, x: Tensor | PointSet) -> list[Part]:
    """The parts of a model, in order, for one image or cloud; they add up to the model.

    Kernels at the border of a lattice count as full, as in the papers.

    Raises:
        ValueError: if the model does not give its parts, or the input is not one set.
    """
    if not isinstance(model, Countable):
        raise ValueError(f"{type(model).__name__} has no method parts; see count_layers")
    points = model.as_points(x)
    if points.num_sets != 1:
        raise ValueError(f"count takes one input, got a batch of {points.num_sets}")
    return list(model.parts(points))


def has_parts(model: nn.Module) -> bool:
    """Whether `count` can count the model."""
    return isinstance(model, Countable)


@torch.no_grad()
def count_layers(model: nn.Module, x: Tensor | PointSet) -> Macs:
    """`linear` and `products` of any network, measured on `x`, a batch of one; `other` is not counted."""
    from torch.utils.flop_counter import FlopCounterMode  # takes long, because it imports Triton

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(x)
    flops = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    linear = sum(n for op, n in flops.items() if op.split(".")[1] in ("convolution", "_convolution", "addmm", "mm"))
    return Macs(linear=linear // 2, products=(sum(flops.values()) - linear) // 2)


def add(macs: Iterable[Macs]) -> Macs:
    """The sum of multiply-adds."""
    return sum(macs, Macs())


def total(parts: Iterable[Part]) -> Macs:
    """Multiply-adds of all parts."""
    return add(part.macs for part in parts)
