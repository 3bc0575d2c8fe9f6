"""A mixer from outside the package, and a timm model of it."""

from __future__ import annotations

import torch
from timm.models import generate_default_cfgs, register_model
from torch import nn

from pointmix.models.backbone import PointBackbone
from pointmix.models.registry import IMAGES, build
from pointmix.ops import segment_max
from pointmix.profile.macs import Macs, linear_macs


class WindowMax(nn.Module):
    """Gives each point a linear map of the maximum over the points of its window."""

    def __init__(self, dim: int):
        super().__init__()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, plan, sets):
        rows = plan.window_partition(x)  # (R, L, C)
        slots = rows if plan.valid is None else rows.masked_fill(~plan.valid[..., None], -torch.inf)
        largest = slots.amax(1)  # (R, C)
        if plan.row_window is not None:
            largest = segment_max(largest, plan.row_window, plan.num_windows)  # (S, C)
        return plan.window_reverse(plan.broadcast(self.proj(largest)).expand_as(rows))

    def macs(self, size):
        return linear_macs(size.windows, self.proj) + Macs(other=size.points * self.proj.in_features)


default_cfgs = generate_default_cfgs({"window_max.untrained": IMAGES})


@register_model
def window_max(pretrained=False, **kwargs):
    settings = dict(
        depths=(1, 1),
        dims=(16, 32),
        mlp_ratios=(2, 2),
        windows_per_side=(2, 1),
        centers_per_side=(2, 2),
        mixer=lambda stage, dim: WindowMax(dim),
    )
    return build(PointBackbone, "window_max", pretrained, **(settings | kwargs))
