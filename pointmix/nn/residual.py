"""Point-wise linear layers with batch normalization (PointMLP)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.ops.batch_norm import batch_norm_relu
from pointmix.ops.linear import linear_trained
from pointmix.profile.macs import BATCH_NORM, Macs, linear_macs
from pointmix.utils.ranges import COUNT, POSITIVE


class LinearNorm(nn.Module):
    """Linear map and batch normalization; over all rows of the batch in training, with running statistics otherwise."""

    def __init__(self, dim_in: int, dim_out: int, *, bias: bool = False) -> None:
        super().__init__()
        COUNT.check(dim_in=dim_in, dim_out=dim_out)
        self.linear = nn.Linear(dim_in, dim_out, bias=bias)
        self.norm = nn.BatchNorm1d(dim_out)

    def forward(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        return self.norm(self.mapped(x))

    def relu(self, x: Float[Tensor, "N C"], plus: Float[Tensor, "N K"] | None = None) -> Float[Tensor, "N K"]:
        """relu(forward(x) + plus)"""
        return norm_relu(self.norm, self.mapped(x), plus)

    def mapped(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """Of the linear map only."""
        if self.training and len(x) == 1:
            what = "batch normalization needs more than 1 value per channel in training"
            raise ValueError(f"{what}; expected a batch_size of at least 2, and no last batch of one (drop_last)")
        return linear_trained(x, self.linear.weight, self.linear.bias)

    def folded(self) -> tuple[Float[Tensor, "K C"], Float[Tensor, "K"]]:
        """Weight and bias of the linear map with the normalization of evaluation mode folded in."""
        norm, bias = self.norm, self.linear.bias
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.running_mean if bias is None else norm.running_mean - bias
        return self.linear.weight * scale[:, None], norm.bias - shift * scale

    def macs(self, rows: int) -> Macs:
        """Multiply-adds of that many rows, in evaluation."""
        return linear_macs(rows, self.linear) + Macs(other=BATCH_NORM * rows * self.linear.out_features)


class Residual(nn.Module):
    """relu(x + norm2(w2 relu(norm1(w1 x)))) with a hidden layer of `ratio` times the input's channels."""

    def __init__(self, dim: int, *, ratio: float) -> None:
        super().__init__()
        COUNT.check(dim=dim)
        POSITIVE.check(ratio=ratio)
        hidden = int(dim * ratio)
        if hidden < 1:
            raise ValueError(f"ratio {ratio} of {dim} channels leaves no hidden channel")
        self.layer1, self.layer2 = LinearNorm(dim, hidden), LinearNorm(hidden, dim)

    def forward(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return self.layer2.relu(self.layer1.relu(x), plus=x)

    def folded(self) -> Callable[[Tensor], Tensor]:
        """`forward` of evaluation mode with the normalizations folded in. Without gradients it may overwrite its
        input."""
        return partial(_residual, first=self.layer1.folded(), second=self.layer2.folded())

    def macs(self, rows: int) -> Macs:
        """Multiply-adds of that many rows."""
        return self.layer1.macs(rows) + self.layer2.macs(rows)


def norm_relu(
    norm: nn.Module, x: Float[Tensor, "N C"], plus: Float[Tensor, "N C"] | None = None
) -> Float[Tensor, "N C"]:
    """relu(norm(x) + plus)"""
    if type(norm) is nn.BatchNorm1d and norm.training and norm.momentum is not None:  # not nn.SyncBatchNorm
        running, batches = (norm.running_mean, norm.running_var), norm.num_batches_tracked
        if norm.affine and running[0] is not None and running[1] is not None and batches is not None:
            batches.add_(1)
            channels = running[0], running[1], norm.weight, norm.bias
            return batch_norm_relu(x, *channels, momentum=norm.momentum, eps=norm.eps, plus=plus)
    y = norm(x)
    return F.relu(y if plus is None else y + plus, inplace=True)


def _residual(x: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    h = F.relu(F.linear(x, *first), inplace=True)
    weight, bias = second
    if torch.is_grad_enabled() or not x.dtype == h.dtype == weight.dtype:  # they differ under autocast
        y = F.linear(h, weight, bias)
        y += x
    else:
        y = x.addmm_(h, weight.t())
        y += bias
    return F.relu(y, inplace=True)
