"""The weights of soft clustering from products of centers and queries, and their sums over the points of each center.

    A[m, n] = softmax over m of clamp(near[m, n] / |q_n|, -bound, bound) + bias[m, n],    near = alpha c_m . q_n / |c_m|

The clamp, with bound = |alpha|, keeps rounding from pushing the cosine of a short query past one.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, choose, has_tangent, register
from pointmix.utils.tracing import traced

# torch passes over the weights, the largest tensors of a mixer, seven times forward and twelve times backward
register(
    "soft_weights",
    Implementation(
        NUMBA,
        "pointmix.ops.soft_weights.numba:soft_weights",
        default=("cpu",),
        devices=("cpu",),
        dtypes=(torch.float32, torch.bfloat16),
    ),
)


def soft_weights(
    near: Float[Tensor, "R M E L"],
    size: Float[Tensor, "R E L"],
    bound: Float[Tensor, "1"],
    bias: Float[Tensor, "_ M #E #L"] | None = None,
    *,
    valid: Bool[Tensor, "R L"] | None = None,
    exists: Bool[Tensor, "R M"] | None = None,
) -> tuple[Float[Tensor, "R M E L"], Float[Tensor, "R M E"]]:
    """The weights, in the dtype of `near`, and their sums over each row. Without gradients it may overwrite `near`.

    Args:
        near: products of the queries with centers of length alpha.
        size: length of each query.
        bound: |alpha|.
        bias: of each center and point. With fewer rows than R, which it must divide, it repeats.
        valid: false for slots without a point, which get weight zero.
        exists: false for centers that do not exist in a row. Each row needs at least one that does.
    """
    given = near, size, bound, bias, valid, exists
    tensors, compiled = [t for t in given if t is not None], None
    if not traced(near) and not has_tangent(*tensors) and all(t.device == near.device for t in tensors):
        compiled = choose("soft_weights", near)
    weights: tuple[Tensor, Tensor] = (compiled or soft_weights_reference)(*given)
    return weights


def soft_weights_reference(
    near: Float[Tensor, "R M E L"],
    size: Float[Tensor, "R E L"],
    bound: Float[Tensor, "1"],
    bias: Float[Tensor, "P M #E #L"] | None,
    valid: Bool[Tensor, "R L"] | None,
    exists: Bool[Tensor, "R M"] | None,
) -> tuple[Float[Tensor, "R M E L"], Float[Tensor, "R M E"]]:
    """`soft_weights` as its equation."""
    logits = (near / size.unsqueeze(1)).clamp(-bound, bound)
    if bias is not None and bias.shape[0] == logits.shape[0]:
        logits = logits + bias
    elif bias is not None:
        logits = (logits.unflatten(0, (-1, bias.shape[0])) + bias).flatten(0, 1)
    if exists is not None:
        logits = logits.masked_fill(~exists[..., None, None], -torch.inf)
    a = logits.softmax(1).to(near.dtype)
    a = a if valid is None else a * valid[:, None, None]
    return a, (a @ a.new_ones(a.shape[-1], 1)).squeeze(-1)  # faster than a sum on a CPU
