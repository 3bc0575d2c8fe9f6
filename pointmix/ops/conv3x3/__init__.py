"""3x3 convolutions of maps whose channels are last, with zeros around the map, also at some cells of a map.

On a CPU they take most of the time of segmenters and detectors, and torch computes them at the rate of a large matrix
product. Winograd's algorithm needs 4 multiplications instead of 9 for each output and pair of channels (`numba`,
`numba_kernels`); as its factors are 1 and 1/2, its results are as exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, choose, has_tangent, register
from pointmix.ops.gather_linear import gather_linear
from pointmix.ops.linear import AVX512
from pointmix.ops.precision import autocast_dtype
from pointmix.utils.tracing import traced

# With fewer, transforms take longer than they save. Without AVX-512 both they and the products are slower.
MIN_CELLS, MIN_CHANNELS = 1024, 64 if AVX512 else 128

register(
    "conv3x3",
    Implementation(
        NUMBA, "pointmix.ops.conv3x3.numba:conv3x3", default=("cpu",), devices=("cpu",), dtypes=(torch.float32,)
    ),
)


def conv3x3_reference(
    x: Float[Tensor, "B H W C"], weight: Float[Tensor, "K C 3 3"], bias: Float[Tensor, "K"] | None
) -> Float[Tensor, "B H W K"]:
    """`torch.nn.functional.conv2d` with a padding of one."""
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1).permute(0, 2, 3, 1)


def conv3x3(
    x: Float[Tensor, "B H W C"], weight: Float[Tensor, "K C 3 3"], bias: Float[Tensor, "K"] | None
) -> Float[Tensor, "B H W K"]:
    """`conv3x3_reference`, by Winograd's algorithm where that is faster."""
    if compiled := _compiled(x, weight, bias):
        return compiled(x.flatten(0, 2), grid_tiles(x.shape[:3], x.device), weight, bias).view(*x.shape[:3], -1)
    return conv3x3_reference(x, weight, bias)


def conv3x3_of_maps(
    x: Float[Tensor, "B C H W"], weight: Float[Tensor, "K C 3 3"], bias: Float[Tensor, "K"] | None
) -> Float[Tensor, "B K H W"]:
    """`conv3x3` of maps in torch's order of axes, in whatever memory format."""
    return conv3x3(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def conv3x3_of_points_reference(
    feat: Float[Tensor, "N C"],
    index: Int[Tensor, "N 9"],
    weight: Float[Tensor, "K C 3 3"],
    bias: Float[Tensor, "K"] | None,
) -> Float[Tensor, "N K"]:
    """The convolution at some cells of grids, of which the others count as zero.

    Args:
        index: the point on each cell under the kernel, row-major; N where there is none.
    """
    return gather_linear(feat, index, weight.permute(0, 2, 3, 1).flatten(1), bias)


def conv3x3_of_points(
    feat: Float[Tensor, "N C"],
    index: Int[Tensor, "N 9"],
    tiles: Int[Tensor, "T 16"],
    weight: Float[Tensor, "K C 3 3"],
    bias: Float[Tensor, "K"] | None,
) -> Float[Tensor, "N K"]:
    """`conv3x3_of_points_reference`, by Winograd's algorithm where that is faster.

    Args:
        tiles: the points on 4x4 cells, row-major; N where there is none. Each point is once among the four in the
            middle.
    """
    if compiled := _compiled(feat, weight, bias):
        return compiled(feat, tiles, weight, bias)
    return conv3x3_of_points_reference(feat, index, weight, bias)


def takes_tiles(feat: Float[Tensor, "N C"]) -> bool:
    """Whether `conv3x3_of_points` would use the tiles of points with such features, given enough channels."""
    if traced(feat) or autocast_dtype(feat) is not None:  # a graph cannot depend on the number of tiles
        return False
    return len(feat) >= MIN_CELLS and choose("conv3x3", feat) is not None


def grid_tiles(size: Sequence[int], device: torch.device) -> Int[Tensor, "T 16"]:
    """`tiles` of full grids of this size (B, H, W), whose points are row-major."""
    maps, height, width = size
    points = maps * height * width
    index = torch.arange(points, device=device).view(maps, height, width)
    index = F.pad(index, (1, 1 + width % 2, 1, 1 + height % 2), value=points)
    return index.unfold(1, 4, 2).unfold(2, 4, 2).reshape(-1, 16)  # (B, H/2, W/2, 4, 4) before


def _compiled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Callable[..., Tensor] | None:
    return choose("conv3x3", x) if _fits(x, weight, bias) else None


def _fits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernels, which read memory without any check, can compute it, and there is enough to do."""
    compiling = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
    given = [t for t in (x, weight, bias) if t is not None]
    if (not compiling and (any(map(traced, given)) or has_tangent(*given))) or autocast_dtype(x) is not None:
        return False
    k, c = weight.shape[:2]
    fits = x.shape[-1] == c and weight.shape[2:] == (3, 3) and (bias is None or bias.shape == (k,))
    same = all(t.dtype == x.dtype and t.device == x.device for t in given)
    return fits and same and x.shape[:-1].numel() >= MIN_CELLS and min(k, c) >= MIN_CHANNELS
