"""timm registration shared by all families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import build_model_with_cfg
from timm.models._features import feature_take_indices
from torch import nn

CHECKPOINT = "; give the authors' checkpoint to pointmix.load_reference(model, path)"
IMAGES = dict(
    url="",
    num_classes=1000,
    input_size=(3, 224, 224),
    pool_size=(7, 7),
    crop_pct=0.9,
    interpolation="bicubic",
    fixed_input_size=False,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    first_conv="stages.0.reducer",
    classifier="head",
    license="apache-2.0",
)


def build(
    family: type[nn.Module], variant: str, pretrained: bool, *, instead: str = CHECKPOINT, **kwargs: Any
) -> nn.Module:
    """A registered variant of a family; timm's wrapper around it with `features_only`.

    Args:
        instead: the end of the error for `pretrained`.
        **kwargs: of timm's `build_model_with_cfg` and of the family.

    Raises:
        ValueError: if `pretrained`, as no weights are hosted.
    """
    if pretrained:
        raise ValueError(f"{variant}: no weights are hosted{instead}")
    feature_cfg = dict(out_indices=(0, 1, 2, 3), feature_cls="getter")
    return build_model_with_cfg(family, variant, pretrained, feature_cfg=feature_cfg, **kwargs)


def take_indices(stages: int, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
    """The chosen stages, counted from 0, and the last of them; the last n for a number n, all for None."""
    given = indices if indices is None or isinstance(indices, int) else list(indices)
    take, last = feature_take_indices(stages, given)
    return list(take), last
