"""The residual block: a mixer over the points, then an MLP over the channels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.layouts.plan import Plan
from pointmix.nn.mixers.base import Mixer, check_mixer
from pointmix.nn.norm import PointNorm, SetIndex
from pointmix.ops.mlp import mlp, mlp_reference
from pointmix.ops.precision import autocast_dtype
from pointmix.ops.residual_norm import recomputes, residual_norm
from pointmix.profile.macs import Macs, Size, linear_macs, norm_macs
from pointmix.utils.ranges import COUNT, FRACTION_BELOW_1, NONNEGATIVE, POSITIVE


class LayerScale(nn.Module):
    """x + gamma * branch, with a learned gamma for each channel."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        NONNEGATIVE.check(layer_scale=init)
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x: Float[Tensor, "N C"], branch: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return torch.addcmul(x, branch, self.gamma)


class SetDropPath(nn.Module):
    """Stochastic depth: in training a branch is dropped for whole sets, with probability `rate`."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        FRACTION_BELOW_1.check(drop_path=rate)
        self.rate, self.drops = rate, rate > 0
        self.kept = torch.tensor(1 - rate, device="cpu")  # an input of compiled graphs, which blocks of any rate share

    @property
    def active(self) -> bool:
        """Whether a forward pass may drop sets."""
        return self.training and self.drops

    def forward(self, x: Float[Tensor, "N C"], sets: SetIndex) -> Float[Tensor, "N C"]:
        if not self.active:
            return x
        scale = x.new_empty(sets.num_sets, 1)
        if torch.compiler.is_compiling():
            scale = (scale.uniform_() < self.kept).to(x.dtype) / self.kept
        else:
            scale.bernoulli_(1 - self.rate).div_(1 - self.rate)
        return x * sets.broadcast(scale)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class Mlp(nn.Module):
    """The parameters of fc2(gelu(fc1(x))), which `Block` runs by `pointmix.ops.mlp`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)


class Block(nn.Module):
    """x + scale1 * drop(mixer(norm1(x))), then x + drop(scale2 * mlp(norm2(x))).

    Args:
        dim: channels.
        mixer: see `pointmix.nn.mixers.base`; None for the identity.
        mlp_ratio: width of the MLP's hidden layer over `dim`.
        drop_path: rate of stochastic depth.
        layer_scale: initial gamma of both branches.
        reference: run the MLP as it is written, with its hidden layer stored for the backward pass.
    """

    def __init__(
        self,
        dim: int,
        mixer: Mixer | None,
        *,
        mlp_ratio: float,
        drop_path: float,
        layer_scale: float,
        reference: bool = False,
    ) -> None:
        super().__init__()
        COUNT.check(dim=dim)
        POSITIVE.check(mlp_ratio=mlp_ratio)
        check_mixer(mixer)
        if int(dim * mlp_ratio) < 1:
            raise ValueError(f"mlp_ratio {mlp_ratio} of {dim} channels leaves no hidden channel for the MLP")
        self.reference = reference
        self.norm1, self.mixer, self.scale1 = PointNorm(dim), mixer, LayerScale(dim, layer_scale)
        self.norm2, self.mlp, self.scale2 = PointNorm(dim), Mlp(dim, int(dim * mlp_ratio)), LayerScale(dim, layer_scale)
        self.drop_path = SetDropPath(drop_path)

    def forward(self, x: Float[Tensor, "N C"], plan: Plan, sets: SetIndex) -> Float[Tensor, "N C"]:
        mixed = _autocast(self.norm1(x, sets))
        mixed = mixed if self.mixer is None else self.mixer(mixed, plan, sets)
        x, y = self._add_and_norm(x, self.drop_path(mixed, sets), sets)
        weights = self.mlp.fc1.weight, self.mlp.fc1.bias, self.mlp.fc2.weight, self.mlp.fc2.bias, self.scale2.gamma
        op, y = mlp_reference if self.reference else mlp, _autocast(y)
        return x + self.drop_path(op(y, *weights), sets) if self.drop_path.active else op(y, *weights, plus=x)

    def _add_and_norm(
        self, x: Float[Tensor, "N C"], branch: Float[Tensor, "N C"], sets: SetIndex
    ) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"]]:
        """x + scale1 * branch, and its norm2. Modules of other types or with hooks are called one by one."""
        original = _original(self.scale1, LayerScale) and _original(self.norm2, PointNorm)
        if original and sets.points_per_set and not self.reference:
            given = x, branch, self.scale1.gamma, self.norm2.weight, self.norm2.bias
            if recomputes(*given):
                return residual_norm(*given, sets.num_sets, self.norm2.eps)
        x = self.scale1(x, branch)
        return x, self.norm2(x, sets)

    def macs(self, size: Size) -> Macs:
        """Multiply-adds of both branches."""
        mixer = Macs() if self.mixer is None else self.mixer.macs(size)
        norms = norm_macs(2 * size.points, self.mlp.fc1.in_features)
        return mixer + norms + linear_macs(size.points, self.mlp.fc1, self.mlp.fc2)


def _original(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module computes what its type does: it is no other module, and has no hooks."""
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return type(module) is kind and not any(hooks)


def _autocast(x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """x in the dtype of autocast, cast once for several matrix products; mixers handle float16 themselves."""
    dtype = autocast_dtype(x)
    return x if dtype in (None, torch.float16) else x.to(dtype)
