"""The residual block: mix over space, then over channels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from pointmix.layouts.plan import Plan
from pointmix.nn.norm import PointNorm, Sets
from pointmix.ops.mlp import mlp, mlp_reference
from pointmix.ops.precision import autocast_dtype
from pointmix.profile.macs import Macs, Size, linear_macs, norm_macs
from pointmix.utils.ranges import COUNT, NONNEGATIVE, PART, POSITIVE


class LayerScale(nn.Module):
    """x + gamma * branch, with a learned factor for each channel."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        NONNEGATIVE.check(layer_scale=init)
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x: Float[Tensor, "N C"], branch: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return torch.addcmul(x, branch, self.gamma)


class SetDropPath(nn.Module):
    """Stochastic depth: in training a branch is dropped for a whole set at a time."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        PART.check(drop_path=rate)
        self.drop = DropPath(rate)

    @property
    def active(self) -> bool:
        """Whether anything can be dropped."""
        return self.training and self.drop.drop_prob > 0

    def forward(self, x: Float[Tensor, "N C"], sets: Sets) -> Float[Tensor, "N C"]:
        if not self.active:
            return x
        keep = self.drop(x.new_ones(sets.number, 1))  # (B, 1), zero or 1 / (1 - rate)
        return x * sets.spread(keep)


class Block(nn.Module):
    """x + scale1 * drop(mixer(norm1(x))), then x + drop(scale2 * mlp(norm2(x))).

    Args:
        dim: channels.
        mixer: called with features (N, C), a plan and the sets; None leaves the normed features as they are.
        mlp_ratio: width of the MLP over `dim`.
        drop_path: rate of stochastic depth.
        layer_scale: initial factor of both branches.
        reference: run the MLP as it is written, with its hidden layer kept for the backward pass.
    """

    def __init__(
        self,
        dim: int,
        mixer: nn.Module | None,
        *,
        mlp_ratio: float,
        drop_path: float,
        layer_scale: float,
        reference: bool = False,
    ) -> None:
        super().__init__()
        COUNT.check(dim=dim)
        POSITIVE.check(mlp_ratio=mlp_ratio)
        if int(dim * mlp_ratio) < 1:
            raise ValueError(f"mlp_ratio {mlp_ratio} of {dim} channels leaves none for the MLP")
        self.reference = reference
        self.norm1, self.mixer, self.scale1 = PointNorm(dim), mixer, LayerScale(dim, layer_scale)
        self.norm2, self.mlp, self.scale2 = PointNorm(dim), Mlp(dim, int(dim * mlp_ratio)), LayerScale(dim, layer_scale)
        self.drop_path = SetDropPath(drop_path)

    def forward(self, x: Float[Tensor, "N C"], plan: Plan, sets: Sets) -> Float[Tensor, "N C"]:
        mixed = _for_products(self.norm1(x, sets))
        mixed = mixed if self.mixer is None else self.mixer(mixed, plan, sets)
        x = self.scale1(x, self.drop_path(mixed, sets))
        weights = self.mlp.fc1.weight, self.mlp.fc1.bias, self.mlp.fc2.weight, self.mlp.fc2.bias, self.scale2.gamma
        op, y = mlp_reference if self.reference else mlp, _for_products(self.norm2(x, sets))
        return x + self.drop_path(op(y, *weights), sets) if self.drop_path.active else op(y, *weights, plus=x)

    def macs(self, size: Size) -> Macs:
        """Multiply-adds of both branches."""
        mixer = Macs() if self.mixer is None else self.mixer.macs(size)
        norms = norm_macs(2 * size.points, self.mlp.fc1.in_features)
        return mixer + norms + linear_macs(size.points, self.mlp.fc1, self.mlp.fc2)


def _for_products(x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """What autocast would make of the argument of each of several products, made once; mixers leave float16 alone."""
    dtype = autocast_dtype(x)
    return x if dtype in (None, torch.float16) else x.to(dtype)
