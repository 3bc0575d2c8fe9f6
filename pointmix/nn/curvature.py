"""The curvature of a hyperbolic space, fixed or learned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.utils.ranges import POSITIVE


class Curvature(nn.Module):
    """kappa > 0, where -kappa is the curvature.

    If fixed, it is a number and not in the state dict. If learned, its logarithm is a parameter, `log_kappa`, and kappa
    stays within [initial / 10, 10 initial]. Source of the bounds: Desai et al., MERU, ICML 2023.

    Args:
        initial: kappa at the start. Raises ValueError unless it is positive and finite.
        learned: whether kappa is a parameter.
    """

    def __init__(self, initial: float = 1.0, *, learned: bool = False):
        super().__init__()
        POSITIVE.check(initial=initial)  # the curvature is -kappa
        self.initial = float(initial)
        self.log_kappa = nn.Parameter(torch.tensor(math.log(initial))) if learned else None

    def forward(self) -> float | Float[Tensor, ""]:
        """kappa: a number, or a tensor in float32 or float64 if it is learned."""
        if self.log_kappa is None:
            return self.initial
        log = self.log_kappa.to(torch.promote_types(self.log_kappa.dtype, torch.float32))
        return _Bounded.apply(log, math.log(self.initial / 10), math.log(self.initial * 10)).exp()

    def extra_repr(self) -> str:
        return f"{self.initial}, learned={self.log_kappa is not None}"


if TYPE_CHECKING:

    class _Context(Protocol):
        """What `_Bounded` uses of torch's context."""

        saved_tensors: tuple[Tensor, ...]
        bounds: tuple[float, float]

        def save_for_backward(self, *tensors: Tensor) -> None: ...

else:
    _Context = object  # it has bounds only after they are set


class _Bounded(torch.autograd.Function):
    """A clamp with the gradient of the identity, except where a descent step would leave the bounds. A plain clamp has
    no gradient outside, so a parameter that one optimizer step put there would never return."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,), (low, high) = ctx.saved_tensors, ctx.bounds
        out = ((x <= low) & (grad > 0)) | ((x >= high) & (grad < 0))
        return grad.masked_fill(out, 0), None, None
