"""Clustering on a GPU by Triton kernels that never form a tensor of M x L: one program per window and head.

`cluster_hard` and `cluster_soft` take the arguments of those in `pointmix.ops.clustering`, except windows in several
rows. Queries and values may have any strides, so parts of the result of one linear map need no copy. Windows of
different sizes need no padding: with `ptr`, points are (N, E, D), window s is ptr[s] to ptr[s + 1], and the bias is
(M, E, N). A plan offers this layout as `packed` if its points lie window by window, each in one window only.

Sums are float32, or float64 for float64. bfloat16 is multiplied as such, float16 as float32, because scaled gradients
overflow it. Autocast has no effect: dtypes may be mixed, and results have the dtype of the values. There are no second
derivatives.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.ops.clustering.products import Similarity
from pointmix.ops.clustering.triton import operators as _  # noqa: F401, registers the operators
from pointmix.ops.similarity import cosine, has_kernel


def cluster_hard(
    q: Float[Tensor, "S L E D"] | Float[Tensor, "N E D"],
    v: Float[Tensor, "S L E D"] | Float[Tensor, "N E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    ptr: Int[Tensor, "S1"] | None = None,
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
    bias: Float[Tensor, "_ M E L"] | Float[Tensor, "M E N"] | None = None,
    *,
    similarity: Similarity = cosine,
    ptr: Int[Tensor, "S1"] | None = None,
    valid: Bool[Tensor, "S L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
) -> Float[Tensor, "S L E D"] | Float[Tensor, "N E D"]:
    """`pointmix.ops.clustering.cluster_soft` in one kernel. With `ptr`, all points are valid.

    Raises ValueError for a similarity that is neither `cosine` nor `negative_distance`, see `has_kernel`.
    """
    if not has_kernel(similarity):
        raise ValueError(f"similarity must be cosine or partial(negative_distance, kappa=...), got {similarity}")
    kappa, released = None, False
    if isinstance(similarity, partial):
        kappa, released = similarity.keywords["kappa"], similarity.keywords.get("released", False)
        if not isinstance(kappa, Tensor):
            kappa = torch.full((), kappa, dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)
    op = torch.ops.pointmix.cluster_soft
    if ptr is None:
        return op(q, v, c, cv, alpha, bias, kappa, None, valid, center_valid, released)
    bias = None if bias is None else bias[None]
    return op(q[None], v[None], c, cv, alpha, bias, kappa, ptr, None, center_valid, released)[0]
