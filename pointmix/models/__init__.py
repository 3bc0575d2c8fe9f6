"""Model families. Importing them registers them with timm."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from pointmix.models import coc, fec, hcformer, pointmlp

_FAMILIES = (coc, fec, hcformer, pointmlp)


def create_model(name: str, **kwargs: Any) -> nn.Module:
    """Build a model by name: one of ours, or one of timm's as a baseline. Keyword arguments go to the model."""
    if not timm.is_model(name):
        raise ValueError(f"no model {name!r}; ours are {', '.join(list_models())}; timm's are in timm.list_models()")
    return timm.create_model(name, **kwargs)


def list_models(pattern: str = "") -> list[str]:
    """Names of our models: all, or those that match a pattern such as "coc_tiny*"."""
    modules = [family.__name__.rsplit(".", 1)[1] for family in _FAMILIES]
    return sorted(name for module in modules for name in timm.list_models(pattern, module=module))
