"""Clustering on a GPU without a tensor of M x L, as `triton_cluster_kernels` has it: one program a window and head.

`cluster_hard` and `cluster_soft` take what those of `pointmix.ops.clustering` take, but for windows in several rows.
Queries and values are read where they lie: any strides, so parts of one linear map's outcome need no copy. Windows
with any number of points need no padding either: with `ptr` points are (N, E, D), window s has places ptr[s] to
ptr[s + 1], and the bias is (M, E, N). A plan offers that as `packed` where it keeps its points window by window and
every point is in one window only; splitting and merging then fall away.

Sums are float32, or float64 for float64. bfloat16 is multiplied as such, float16 as float32, because gradients under a
loss scale pass its range. Autocast changes nothing: dtypes may be mixed, and what comes back has the dtype of the
values. There are no second derivatives.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.ops.fast import triton_cluster_ops as _  # noqa: F401, which registers the operators
from pointmix.ops.similarity import cosine, negative_distance


def cluster_hard(
    q: Float[Tensor, "S L E D"] | Float[Tensor, "N E D"],
    v: Float[Tensor, "S L E D"] | Float[Tensor, "N E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    ptr: Int[Tensor, "S+1"] | None = None,
    valid: Bool[Tensor, "S L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
    denominator: str = "weights",
    unweighted: bool = False,
) -> Float[Tensor, "S L E D"] | Float[Tensor, "N E D"]:
    """`pointmix.ops.clustering.cluster_hard` in one kernel. With `ptr`, all points are valid."""
    rules = denominator == "count" or unweighted, unweighted
    op = torch.ops.pointmix.cluster_hard
    if ptr is None:
        return op(q, v, c, cv, alpha, beta, None, valid, center_valid, *rules)
    return op(q[None], v[None], c, cv, alpha, beta, ptr, None, center_valid, *rules)[0]


def cluster_soft(
    q: Float[Tensor, "S L E D"] | Float[Tensor, "N E D"],
    v: Float[Tensor, "S L E D"] | Float[Tensor, "N E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    bias: Float[Tensor, "R M E L"] | Float[Tensor, "M E N"] | None = None,
    *,
    similarity=cosine,
    ptr: Int[Tensor, "S+1"] | None = None,
    valid: Bool[Tensor, "S L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
) -> Float[Tensor, "S L E D"] | Float[Tensor, "N E D"]:
    """`pointmix.ops.clustering.cluster_soft` in one kernel. With `ptr`, all points are valid.

    Raises ValueError for a similarity that is neither `cosine` nor `negative_distance`, see `knows`.
    """
    if not knows(similarity):
        raise ValueError(f"similarity must be cosine or partial(negative_distance, kappa=...), got {similarity}")
    kappa, released = None, False
    if similarity is not cosine:
        kappa, released = similarity.keywords["kappa"], similarity.keywords.get("released", False)
        if not isinstance(kappa, Tensor):
            kappa = torch.full((), kappa, dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)
    op = torch.ops.pointmix.cluster_soft
    if ptr is None:
        return op(q, v, c, cv, alpha, bias, kappa, None, valid, center_valid, released)
    bias = None if bias is None else bias[None]
    return op(q[None], v[None], c, cv, alpha, bias, kappa, ptr, None, center_valid, released)[0]


def knows(similarity) -> bool:
    """Whether the kernel has this similarity."""
    return similarity is cosine or (
        isinstance(similarity, partial) and similarity.func is negative_distance and not similarity.args
    )
