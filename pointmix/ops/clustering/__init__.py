"""Clustering: points aggregate into the centers of their window, and centers dispatch back to their points.

There are R rows of L points, S windows of M centers, and E heads of D channels. Each row belongs to one window; row r
is window r unless `row_window` maps several rows to one window.

    weight      A[m, n] = sigmoid(alpha * cos(c_m, q_n) + beta) at the most similar center m of point n, zero elsewhere
    aggregate   g_m = (cv_m + sum_n A[m, n] v_n) / (1 + sum_n A[m, n])
    dispatch    o_n = sum_m A[m, n] g_m

Source: Context Clusters (Ma et al., ICLR 2023), equations 1 to 3. Unweighted, points enter the aggregate with one in
place of A[m, n], and only the dispatch is weighted; source: FEC (Chen et al., CVPR 2024), released code. Soft
clustering (HCFormer, equations 1 to 3 and 8) has the same aggregate and dispatch, but each point has a weight at every
center of its window:

    weight      A[m, n] = softmax over m of alpha * similarity(c_m, q_n) + bias[m, n]
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.ops.clustering.products import Similarity, assign_hard, assign_soft, hard, soft, update_centers
from pointmix.ops.clustering.reference import cluster_hard_reference, cluster_soft_reference
from pointmix.ops.dispatch import FLOATS, TRITON, Implementation, choose, has_tangent, register, traced_as_constant
from pointmix.ops.ragged import as_ptr
from pointmix.ops.similarity import cosine, has_kernel

__all__ = [
    "DENOMINATORS",
    "assign_hard",
    "assign_soft",
    "cluster_hard",
    "cluster_hard_reference",
    "cluster_soft",
    "cluster_soft_reference",
    "fused",
    "update_centers",
]
DENOMINATORS = ("weights", "count")

for _op in ("cluster_hard", "cluster_soft"):
    register(
        _op,
        Implementation(
            TRITON,
            f"pointmix.ops.clustering.triton:{_op}",
            devices=("cuda",),
            dtypes=FLOATS,
            limit=8192,
            unit="bytes of padded centers per head",
            hard_limit=True,
            note="not timed on a GPU yet",
        ),
    )


def cluster_hard(
    q: Float[Tensor, "R L E D"] | Float[Tensor, "N E D"],
    v: Float[Tensor, "R L E D"] | Float[Tensor, "N E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    row_window: Int[Tensor, "R"] | None = None,
    valid: Bool[Tensor, "R L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
    denominator: str = "weights",
    unweighted: bool = False,
    ptr: Int[Tensor, "S1"] | Sequence[int] | None = None,
) -> Float[Tensor, "R L E D"] | Float[Tensor, "N E D"]:
    """Hard clustering as batched products, without a tensor of M x L x D.

    Args:
        q, v: queries and values of the points.
        c, cv: queries and values of the centers.
        alpha, beta: scale and offset of the similarity.
        row_window: the window of each row; None if row r is window r.
        valid: false for slots without a point, whose results are not meaningful.
        center_valid: false for centers that do not exist. Each window needs at least one that does.
        denominator: "weights" divides by 1 + the sum of weights, "count" by 1 + the number of points of the center.
        unweighted: points enter the aggregate with weight one, so that either denominator is 1 + their number.
        ptr: points are packed, (N, E, D), instead of in rows; those of window s are ptr[s] to ptr[s + 1]. Only a fused
            kernel supports this.

    Returns:
        The new value of each point.

    Raises:
        ValueError: if ptr is given, but no kernel takes these windows.
    """
    size = _padded_bytes(c.shape[1], c.shape[3], q.dtype)
    eligible = row_window is None and not has_tangent(q, v, c, cv, alpha, beta)
    if eligible and (kernel := choose("cluster_hard", q, size=size)):
        rules = {"denominator": denominator, "unweighted": unweighted}
        layout = {"ptr": _ptr("cluster_hard", ptr, q), "valid": valid, "center_valid": center_valid}
        return kernel(q, v, c, cv, alpha, beta, **layout, **rules)
    _need_rows("cluster_hard", ptr)
    return hard(q, v, c, cv, alpha, beta, row_window, valid, center_valid, denominator, unweighted)


def cluster_soft(
    q: Float[Tensor, "R L E D"] | Float[Tensor, "N E D"],
    v: Float[Tensor, "R L E D"] | Float[Tensor, "N E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    bias: Float[Tensor, "_ M E L"] | Float[Tensor, "M E N"] | None = None,
    *,
    similarity: Similarity = cosine,
    row_window: Int[Tensor, "R"] | None = None,
    valid: Bool[Tensor, "R L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
    ptr: Int[Tensor, "S1"] | Sequence[int] | None = None,
) -> Float[Tensor, "R L E D"] | Float[Tensor, "N E D"]:
    """Soft clustering as batched products; arguments and errors are those of `assign_soft` and `cluster_hard`.

    With ptr, the bias is (M, E, N).
    """
    size = _padded_bytes(c.shape[1], c.shape[3], q.dtype)
    eligible = row_window is None and has_kernel(similarity) and not has_tangent(q, v, c, cv, alpha)
    if eligible and (kernel := choose("cluster_soft", q, size=size)):
        layout = {"ptr": _ptr("cluster_soft", ptr, q), "valid": valid, "center_valid": center_valid}
        return kernel(q, v, c, cv, alpha, bias, similarity=similarity, **layout)
    _need_rows("cluster_soft", ptr)
    return soft(q, v, c, cv, alpha, bias, similarity, row_window, valid, center_valid)


def fused(op: str, x: Float[Tensor, "*N"], centers: int, dim: int) -> bool:
    """Whether a fused kernel clusters windows of that many centers, with that many channels per head and x's dtype.

    Windows whose padded centers do not fit on the chip are left to batched products, even within `use_backend`.

    Args:
        op: "cluster_hard" or "cluster_soft".
    """
    return choose(op, x, size=_padded_bytes(centers, dim, x.dtype)) is not None


def _padded_bytes(centers: int, dim: int, dtype: torch.dtype) -> int:
    """Bytes of a window's centers for one head, padded as the Triton kernel pads them."""
    numbers = math.prod(max(2 ** (int(size) - 1).bit_length(), 16) for size in (centers, dim))
    return numbers * (2 if dtype == torch.bfloat16 else 8 if dtype == torch.float64 else 4)


traced_as_constant(_padded_bytes)


def _ptr(what: str, ptr: Int[Tensor, "S1"] | Sequence[int] | None, q: Tensor) -> Int[Tensor, "S1"] | None:
    return None if ptr is None else as_ptr(what, ptr, q.device)


def _need_rows(what: str, ptr: Int[Tensor, "S1"] | Sequence[int] | None) -> None:
    if ptr is not None:
        raise ValueError(f"{what}: only a fused kernel takes windows by ptr, and none takes these; see `fused`")
