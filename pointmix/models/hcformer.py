"""HCFormer: soft clustering of points in windows, and of the windows themselves, in two geometries.

"Hierarchical Clustering for Visual Representation Learning", submitted to ICLR 2026. The authors released no weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from pointmix.layouts.base import PlanOptions
from pointmix.models.backbone import PointBackbone, check_stages, per_stage
from pointmix.models.registry import IMAGES, build
from pointmix.nn.mixers.hierarchical import GEOMETRIES, ClusterMixer
from pointmix.nn.stage import StageOptions
from pointmix.utils.ranges import COUNT, POSITIVE, check_choice

HIERARCHIES = ("window", "shift", "none")


class HCFormer(PointBackbone):
    """The HCFormer family; the paper's ablations are its switches (sections 3 and 4.4, tables 4 and 5).

    Args:
        heads, head_dim: for each stage, or one number for all.
        hierarchy: "window" clusters the windows too; "shift" rolls the windows of every second block by half of one, in
            stages with several windows (cyclically and without a mask, so that opposite borders meet); "none" neither.
        geometry_patch, geometry_window: "euclidean" or "hyperbolic", for points and for windows.
        rel_pos: biases by position: true or "table" for the paper's tables, which clouds cannot read; "offset" for a
            small network of the position relative to the center, for any layout (ours); false for none.
        curvature: kappa of the hyperbolic branches; `learn_curvature` makes it a parameter of each block.
        global_centers_per_side: number of centers along each side of the whole set, for each stage; None for a stage
            without the upper branch.
        table_size: side of the bias tables of each stage, which is the grid's at 224 pixels. For other sizes the tables
            are interpolated.
        pad: "needed", or "always" as in the released code, see `reflect_padding`.
        coords: append coordinates to the input, as the paper says; the released code does not.
        cat_norm, expmap, alpha: see `ClusterMixer`.
        decay_bias_tables: false excludes the tables from weight decay; the recipe includes them.
        coord_dims, reference, **kwargs: of `PointBackbone`.

    Raises:
        ValueError: if a switch has an unknown value, or the per-stage settings differ in length.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        windows_per_side: Sequence[int],
        centers_per_side: Sequence[int],
        heads: int | Sequence[int],
        head_dim: int | Sequence[int],
        hierarchy: str = "window",
        geometry_patch: str = "euclidean",
        geometry_window: str = "hyperbolic",
        rel_pos: bool | str = True,
        curvature: float = 1.0,
        learn_curvature: bool = False,
        global_centers_per_side: Sequence[int | None] = (4, 4, 1, None),
        table_size: Sequence[int] = (56, 28, 14, 7),
        pad: str = "needed",
        coords: bool = False,
        coord_dims: int = 2,
        cat_norm: bool = False,
        expmap: str = "proper",
        alpha: str = "free",
        decay_bias_tables: bool = True,
        reference: bool = False,
        **kwargs: Any,
    ) -> None:
        COUNT.check(heads=heads, head_dim=head_dim, table_size=table_size, coord_dims=coord_dims)
        check_stages(depths, global_centers_per_side=global_centers_per_side, table_size=table_size)
        COUNT.check(global_centers_per_side=[n for n in global_centers_per_side if n is not None])
        stages = len(depths)
        heads, head_dim = per_stage(heads, stages), per_stage(head_dim, stages)
        per_side = dict(windows_per_side=windows_per_side, centers_per_side=centers_per_side)
        check_stages(depths, heads=heads, head_dim=head_dim, **per_side)
        check_choice(known=HIERARCHIES, hierarchy=hierarchy)
        check_choice(known=GEOMETRIES, geometry_patch=geometry_patch, geometry_window=geometry_window)
        check_choice(known=("needed", "always"), pad=pad)
        if rel_pos not in (True, False, "table", "offset"):
            raise ValueError(f"rel_pos must be true, false, 'table' or 'offset', got {rel_pos!r}")
        if isinstance(curvature, str):  # PyYAML reads 1e-1 as text
            try:
                curvature = float(curvature)
            except ValueError:
                curvature = math.nan
        POSITIVE.check(curvature=curvature)
        if rel_pos in (True, "table") and (coord_dims != 2 or kwargs.get("layout") == "cloud"):
            raise ValueError("clouds cannot read bias tables; give rel_pos 'offset' or false")
        self.decay_bias_tables = decay_bias_tables
        table_sides = table_size if rel_pos in (True, "table") else (None,) * stages
        global_sides = global_centers_per_side if hierarchy == "window" else (None,) * stages

        def mixer(stage: int, dim: int) -> ClusterMixer:
            side = global_sides[stage]
            return ClusterMixer(
                dim,
                heads=heads[stage],
                head_dim=head_dim[stage],
                centers=centers_per_side[stage] ** 2,
                table_size=table_sides[stage],
                global_centers=None if side is None else side**2,
                upper_table_size=None if table_sides[stage] is None else windows_per_side[stage],
                geometry=geometry_patch,
                upper_geometry=geometry_window,
                curvature=curvature,
                learn_curvature=learn_curvature,
                expmap=expmap,
                alpha=alpha,
                relative_pos_dims=coord_dims if rel_pos == "offset" else None,
                cat_norm=cat_norm,
                reference=reference,
            )

        def stage_options(i: int) -> StageOptions:
            plan_options = PlanOptions(pad=pad, table_size=table_sides[i], global_centers_per_side=global_sides[i])
            shift = hierarchy == "shift" and windows_per_side[i] > 1  # rolling a single window would only split it
            return StageOptions(plan_options=plan_options, relative_pos=rel_pos == "offset", shift=shift)

        super().__init__(
            depths=depths,
            windows_per_side=windows_per_side,
            centers_per_side=centers_per_side,
            mixer=mixer,
            stage_options=stage_options,
            coords=coords,
            coord_dims=coord_dims,
            reference=reference,
            **kwargs,
        )

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, beyond the vectors, which optimizers exclude anyway."""
        if self.decay_bias_tables:
            return set()
        return {name for name, _ in self.named_parameters() if name.endswith((".bias_patch", ".bias_window"))}


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A checkpoint with its bias tables interpolated to the size of this model's, for timm's `load_checkpoint`.

    Only for models that were built with another `table_size`: without it, loading them is an error. Images of other
    sizes do not need it, as tables are interpolated to any grid.
    """
    own, out = model.state_dict(), dict(state_dict)
    for name, table in state_dict.items():
        resized = resized_table(name, table, own[name]) if name in own else None
        out[name] = table if resized is None else resized
    return out


def resized_table(name: str, table: Tensor, place: Tensor) -> Tensor | None:
    """A bias table interpolated to the size of its place in a network; None if it is no such table.

    Args:
        name: of the table in the network.
        table, place: (heads, clusters, h, w) of any h, w.
    """
    is_table = name.endswith((".bias_patch", ".bias_window")) and table.ndim == place.ndim == 4
    if not is_table or table.shape[:2] != place.shape[:2] or not table.is_floating_point():
        return None
    return F.interpolate(table, place.shape[2:], mode="bilinear", align_corners=True)


_CFG = IMAGES | dict(paper_name="Hierarchical Clustering for Visual Representation Learning")
_NAMES = ("nano", "tiny", "small", "medium")
default_cfgs = generate_default_cfgs({f"hcformer_{name}.untrained": _CFG for name in _NAMES})


def _create(variant: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build(HCFormer, variant, pretrained, instead=", and the authors released none", **kwargs)


_TINY = dict(
    depths=(2, 2, 6, 2), dims=(32, 64, 196, 320), mlp_ratios=(8, 8, 4, 4), heads=(4, 4, 8, 8), head_dim=24,
    windows_per_side=(7, 7, 1, 1), centers_per_side=(4, 2, 7, 4),
)  # fmt: skip
_NANO = _TINY | dict(dims=(32, 64, 196, 224), head_dim=16)
_SMALL = _TINY | dict(dims=(64, 128, 320, 512), head_dim=32)
_MEDIUM = _SMALL | dict(depths=(4, 4, 12, 4), heads=(6, 6, 12, 12))


@register_model
def hcformer_nano(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HCFormer-Nano: 5.33 M parameters. In the released code only."""
    return _create("hcformer_nano", pretrained, **(_NANO | kwargs))


@register_model
def hcformer_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HCFormer-Tiny: 6.95 M parameters."""
    return _create("hcformer_tiny", pretrained, **(_TINY | kwargs))


@register_model
def hcformer_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HCFormer-Small: 16.11 M parameters."""
    return _create("hcformer_small", pretrained, **(_SMALL | kwargs))


@register_model
def hcformer_medium(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HCFormer-Medium: 33.65 M parameters."""
    return _create("hcformer_medium", pretrained, **(_MEDIUM | kwargs))
