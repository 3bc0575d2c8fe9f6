"""Context Clusters (CoC): an image is a set of points, and clustering is the only spatial operation.

Ma et al., "Image as Set of Points", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from pointmix.models.backbone import PointBackbone, check_stages, per_stage
from pointmix.models.registry import IMAGES, build
from pointmix.nn.mixers.context import ContextCluster
from pointmix.utils.ranges import COUNT


class ContextClusters(PointBackbone):
    """The CoC family.

    Args:
        heads, head_dim: for each stage, or one number for all.
        denominator: "weights" as in the released code, "count" as in the code behind the paper's numbers.
        unweighted: points enter a center's aggregate with weight one, see `ContextCluster`.
        center_updates: dynamic centers, see `ContextCluster`.
        cluster: false builds blocks without mixers (the ablation without clustering).
        depths, **kwargs: of `PointBackbone`.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        heads: int | Sequence[int],
        head_dim: int | Sequence[int],
        denominator: str = "weights",
        unweighted: bool = False,
        center_updates: int = 0,
        cluster: bool = True,
        **kwargs: Any,
    ) -> None:
        COUNT.check(heads=heads, head_dim=head_dim)
        check_stages(depths)
        heads, head_dim = per_stage(heads, len(depths)), per_stage(head_dim, len(depths))
        check_stages(depths, heads=heads, head_dim=head_dim)

        def mixer(stage: int, dim: int) -> ContextCluster | None:
            if not cluster:
                return None
            return ContextCluster(
                dim,
                heads=heads[stage],
                head_dim=head_dim[stage],
                denominator=denominator,
                unweighted=unweighted,
                center_updates=center_updates,
                reference=kwargs.get("reference", False),
            )

        super().__init__(depths=depths, mixer=mixer, **kwargs)


_CFG = IMAGES | dict(paper_name="Image as Set of Points", paper_ids="arXiv:2303.01494")
_NAMES = ("tiny", "tiny2", "tiny_plain", "small", "medium", "base_dim64", "base_dim96")
default_cfgs = generate_default_cfgs({f"coc_{name}.untrained": _CFG for name in _NAMES})


def _create(variant: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build(ContextClusters, variant, pretrained, **kwargs)


_TINY = dict(
    depths=(3, 4, 5, 2), dims=(32, 64, 196, 320), mlp_ratios=(8, 8, 4, 4), heads=(4, 4, 8, 8), head_dim=24,
    windows_per_side=(8, 4, 2, 1), centers_per_side=(2, 2, 2, 2),
)  # fmt: skip
_SMALL = _TINY | dict(depths=(2, 2, 6, 2), dims=(64, 128, 320, 512), head_dim=32)
_MEDIUM = _SMALL | dict(depths=(4, 4, 12, 4), heads=(6, 6, 12, 12))


@register_model
def coc_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CoC-Tiny: 5.57 M parameters."""
    return _create("coc_tiny", pretrained, **(_TINY | kwargs))


@register_model
def coc_tiny2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CoC-Tiny with other windows and centers (Tiny-dagger in the paper)."""
    return _create(
        "coc_tiny2", pretrained, **(_TINY | dict(windows_per_side=(7, 7, 1, 1), centers_per_side=(4, 2, 7, 4)) | kwargs)
    )


@register_model
def coc_tiny_plain(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CoC-Tiny without windows."""
    return _create(
        "coc_tiny_plain",
        pretrained,
        **(_TINY | dict(windows_per_side=(1, 1, 1, 1), centers_per_side=(4, 4, 2, 2)) | kwargs),
    )


@register_model
def coc_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CoC-Small: 14.66 M parameters."""
    return _create("coc_small", pretrained, **(_SMALL | kwargs))


@register_model
def coc_medium(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CoC-Medium: 29.29 M parameters."""
    return _create("coc_medium", pretrained, **(_MEDIUM | kwargs))


@register_model
def coc_base_dim64(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CoC-Base, deep: 54.23 M parameters. In the released code only."""
    return _create("coc_base_dim64", pretrained, **(_SMALL | dict(depths=(6, 6, 24, 6), heads=(8, 8, 16, 16)) | kwargs))


@register_model
def coc_base_dim96(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CoC-Base, wide: 53.05 M parameters. In the released code only."""
    wide = dict(depths=(4, 4, 12, 4), dims=(96, 192, 384, 768), heads=(8, 8, 16, 16))
    return _create("coc_base_dim96", pretrained, **(_SMALL | wide | kwargs))
