"""FEC: feature extraction with clustering, within stages and as pooling between them.

Chen et al., "Neural Clustering based Visual Representation Learning", CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from timm.models import generate_default_cfgs, register_model
from torch import nn

from pointmix.models.backbone import per_stage
from pointmix.models.coc import ContextClusters
from pointmix.models.registry import IMAGES, build
from pointmix.nn.cluster_pool import ClusterPool
from pointmix.utils.ranges import COUNT


class FEC(ContextClusters):
    """The FEC family: Context Clusters without windows or weights in the aggregate, and clustering as pooling.

    Args:
        pool_windows_per_side: number of windows along each side in which each of the pools between stages clusters, or
            one number for all. The paper's detectors have (2, 1, 1): the windows of the stage after each pool.
        **kwargs: of `ContextClusters`, except `unweighted` and `reducer`.
    """

    def __init__(self, *, pool_windows_per_side: int | Sequence[int] = 1, **kwargs: Any) -> None:
        if taken := {"unweighted", "reducer"} & set(kwargs):
            raise ValueError(f"{' and '.join(sorted(taken))} cannot be changed in FEC; use ContextClusters")
        pool = partial(ClusterPool, reference=kwargs.get("reference", False))
        super().__init__(unweighted=True, reducer=pool, **kwargs)
        pools = [cast(ClusterPool, stage.reducer) for stage in self.stages[1:]]
        COUNT.check(pool_windows_per_side=pool_windows_per_side)
        windows = per_stage(pool_windows_per_side, len(pools))
        if len(windows) != len(pools):
            raise ValueError(f"pool_windows_per_side has {len(windows)} values for {len(pools)} pools: {windows}")
        for pool_of_stage, number in zip(pools, windows, strict=True):
            pool_of_stage.windows_per_side = number


_CFG = IMAGES | dict(paper_name="Neural Clustering based Visual Representation Learning", paper_ids="arXiv:2403.17409")
default_cfgs = generate_default_cfgs({f"fec_{name}.untrained": _CFG for name in ("small", "base", "large")})


def _create(variant: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build(FEC, variant, pretrained, **kwargs)


_SMALL = dict(
    depths=(3, 4, 5, 2), dims=(32, 64, 196, 320), mlp_ratios=(8, 8, 4, 4), heads=(4, 4, 8, 8), head_dim=24,
    windows_per_side=(1, 1, 1, 1), centers_per_side=(4, 4, 2, 2),
)  # fmt: skip
_BASE = _SMALL | dict(depths=(2, 2, 6, 2), dims=(64, 128, 320, 512), head_dim=32)
_LARGE = _BASE | dict(depths=(4, 4, 12, 4), heads=(6, 6, 12, 12))


@register_model
def fec_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """FEC-Small: 5.73 M parameters."""
    return _create("fec_small", pretrained, **(_SMALL | kwargs))


@register_model
def fec_base(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """FEC-Base: 15.09 M parameters."""
    return _create("fec_base", pretrained, **(_BASE | kwargs))


@register_model
def fec_large(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """FEC-Large: 29.72 M parameters."""
    return _create("fec_large", pretrained, **(_LARGE | kwargs))
