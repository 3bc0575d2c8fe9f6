"""PointMLP's first linear map of a group, applied before its neighbors are gathered.

PointMLP describes neighbor j of anchor i by (alpha (f_j - f_i) / (std + eps) + beta, f_i) and maps that linearly. The
map is linear in f_j and in f_i, so it can be applied once to each point instead of once to each neighbor:

    W1 (alpha (f_j - f_i) / (std + eps) + beta) + W2 f_i + b = t_i + (u_j - u_i) / (std + eps)
    u = (W1 alpha) f,   t = W2 f + W1 beta + b

Ma et al., "Rethinking Network Design and Local Geometry in Point Cloud", ICLR 2022, equations 4 and 5.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, choose_trained, register
from pointmix.ops.precision import autocast_dtype, without_autocast
from pointmix.ops.segments import segment_count, segment_sum

# torch writes what it gathers, and adds up gradients in one thread
for _op in ("group_rows", "difference_sums"):
    register(_op, Implementation(NUMBA, f"pointmix.ops.group_linear.numba:{_op}", default=("cpu",), devices=("cpu",)))

EPS = 1e-5
NOISE = 32  # differences of up to this many roundings of a feature count as zero, so that they are not amplified


def group_linear_reference(
    feat: Float[Tensor, "N C"],
    near: Int[Tensor, "S k"],
    anchor: Int[Tensor, "S"],
    batch: Int[Tensor, "S"],
    sets: int,
    alpha: Float[Tensor, "C"],
    beta: Float[Tensor, "C"],
    weight: Float[Tensor, "K C2"],
) -> Float[Tensor, "S*k K"]:
    """Form every group and map it.

    Args:
        feat: features of the points.
        near: indices of each anchor's neighbors.
        anchor: index of each anchor.
        batch: the set of each anchor.
        sets: B.
        alpha, beta: scale and offset of each channel of a difference.
        weight: of the linear map; the second half is for the anchor.
    """
    center = feat[anchor][:, None].expand(-1, near.shape[1], -1)  # (S, k, C)
    x = (feat[near] - center) * inverse_std(feat, near, anchor, batch, sets)[:, None, None].to(feat.dtype)
    return F.linear(torch.cat([x * alpha + beta, center], dim=-1), weight).flatten(0, 1)


def map_points(
    feat: Float[Tensor, "N C"],
    anchor: Int[Tensor, "S"],
    alpha: Float[Tensor, "C"],
    beta: Float[Tensor, "C"],
    weight: Float[Tensor, "K C2"],
    bias: Float[Tensor, "K"] | None = None,
) -> tuple[Float[Tensor, "N K"], Float[Tensor, "S K"]]:
    """u of each point and t of each anchor."""
    w1, w2 = weight.chunk(2, dim=1)
    shift = w1 @ beta if bias is None else torch.addmv(bias, w1, beta)
    return F.linear(feat, w1 * alpha), F.linear(feat[anchor], w2, shift.to(w2.dtype))


def group_rows(
    u: Float[Tensor, "N K"],
    t: Float[Tensor, "S K"],
    scale: Float[Tensor, "S"],
    near: Int[Tensor, "S k"],
    anchor: Int[Tensor, "S"],
) -> Float[Tensor, "S*k K"]:
    """t_i + scale_i (u_j - u_i) for every neighbor j of every anchor i.

    The difference comes first, so that equal points differ by exactly 0.
    """
    half = autocast_dtype(u) == u.dtype == torch.bfloat16
    given = (u.float(), t.float(), scale.float()) if half else (u, t, scale)  # few: not one for each neighbor
    with without_autocast(u) if half else nullcontext():
        if function := choose_trained("group_rows", *given):
            rows: Tensor = function(*given, near, anchor)
            return rows.to(u.dtype)
    x = u.index_select(0, near.flatten()).view(*near.shape, -1)  # (S, k, K)
    x -= u.index_select(0, anchor)[:, None]
    out = None if torch.is_grad_enabled() else x
    scale = scale.clamp(max=torch.finfo(x.dtype).max).to(x.dtype)  # 1 / eps does not fit float16
    return torch.addcmul(t[:, None], x, scale[:, None, None], out=out).flatten(0, 1)


def inverse_std(
    feat: Float[Tensor, "N C"],
    near: Int[Tensor, "S k"],
    anchor: Int[Tensor, "S"],
    batch: Int[Tensor, "S"],
    sets: int,
    piece: int = 0,
) -> Float[Tensor, "S"]:
    """1 / (std + eps) for each anchor. std is one number per set: the (unbiased) standard deviation of all differences
    between neighbors and anchors, over groups, neighbors and channels.

    Zero where all differences are within rounding. With `piece`, that many groups are processed at a time.
    """
    feat = feat if feat.dtype == torch.float64 else feat.float()
    parts = []
    for n, a in zip(*(x.split(piece) if piece else (x,) for x in (near, anchor)), strict=True):
        center = feat.detach().index_select(0, a)  # (S, C); the size decides only which sets have a scale
        with without_autocast(feat):
            sums = difference_sums(feat, n, a)
        parts.append(torch.cat([sums, center.square().sum(1, keepdim=True)], dim=1))
    total, square, size = segment_sum(torch.cat(parts), batch, sets).unbind(1)  # (B,)
    anchors = segment_count(batch, sets)
    number = anchors * (near.shape[1] * feat.shape[1])
    var = (square - total.square() / number) / (number - 1).clamp(min=1)
    noise = (NOISE * torch.finfo(feat.dtype).eps) ** 2 * size / (anchors * feat.shape[1])
    real = var > noise
    scale = torch.where(real, 1 / (torch.where(real, var, 1.0).sqrt() + EPS), 0.0)
    return scale[batch]


def difference_sums(
    feat: Float[Tensor, "N C"], near: Int[Tensor, "S k"], anchor: Int[Tensor, "S"]
) -> Float[Tensor, "S 2"]:
    """Sum of the differences between an anchor and its neighbors, over neighbors and channels, and of their squares."""
    if function := choose_trained("difference_sums", feat):
        sums: Tensor = function(feat, near, anchor)
        return sums
    d = feat.index_select(0, near.flatten()).view(*near.shape, -1)  # (S, k, C)
    d -= feat.index_select(0, anchor)[:, None]
    d = d.flatten(1)
    return torch.stack([d.sum(1), (d[:, None] @ d[..., None]).view(-1)], dim=1)
