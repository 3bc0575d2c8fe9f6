"""The optimizer of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from timm.optim import create_optimizer_v2, param_groups_layer_decay
from torch import nn
from torch.optim import Optimizer

from pointmix.engine.layers import layer_numbers
from pointmix.tasks.config import OptimConfig


def build_optimizer(model: nn.Module, optim: OptimConfig, *, lr: float) -> Optimizer:
    """The optimizer of the parameters that have gradients.

    With `optim.layer_decay`, the groups have an "lr_scale", by which timm's schedules multiply the rates that they set.

    Args:
        lr: learning rate of the head.

    Raises:
        ValueError: there is a layer decay, and the network does not name its layers.
    """
    options: dict[str, Any] = {} if optim.betas is None else {"betas": tuple(optim.betas)}
    if (decay := optim.layer_decay) is not None:
        numbers = layer_numbers(model)
        if numbers is None:
            name = type(getattr(model, "backbone", model)).__name__
            raise ValueError(f"optim.layer_decay: {name} does not name its layers (no group_matcher); expected null")
        layers = _Layers(model, numbers)

        def groups(model: nn.Module) -> list[dict[str, Any]]:
            return param_groups_layer_decay(
                layers,  # type: ignore[arg-type]  # only these two methods are used
                weight_decay=optim.weight_decay,
                no_weight_decay_list=getattr(model, "no_weight_decay", set)(),
                fallback_no_weight_decay=True,
                weight_decay_exclude_1d=not optim.decay_all,
                layer_decay=decay,
            )

        options["param_group_fn"] = groups
    optimizer = create_optimizer_v2(
        model,
        opt=optim.opt,
        lr=lr,
        weight_decay=optim.weight_decay,
        filter_bias_and_bn=not optim.decay_all,
        fallback_no_weight_decay=True,  # tables without decay are no matrices for Muon either
        **options,
    )
    for group in optimizer.param_groups if optim.sched == "none" else ():  # no schedule will scale the rates
        group["lr"] *= group.get("lr_scale", 1.0)
    return optimizer


class _Layers:
    """Parameters with their layers, as timm reads them of a network."""

    def __init__(self, model: nn.Module, numbers: dict[str, int]) -> None:
        self.model, self.numbers = model, numbers

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.model.named_parameters()

    def group_matcher(self, coarse: bool = False) -> Any:
        return self.numbers.__getitem__
