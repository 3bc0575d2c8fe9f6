"""The layers of a network, as timm's `group_matcher` names them, of classifiers and of what has a backbone."""

from __future__ import annotations

from typing import Any

from timm.models._manipulate import group_with_matcher
from torch import nn


def layer_numbers(model: nn.Module, *, coarse: bool = False) -> dict[str, int] | None:
    """The layer of each parameter and buffer, from 0, the stem; the last layer is the head and what else is in none.

    Args:
        model: has `group_matcher`, or a `backbone` that has it.
        coarse: whether a stage is a layer rather than a block.

    Returns:
        None if the network does not name its layers.
    """
    owner = model if hasattr(model, "group_matcher") else getattr(model, "backbone", None)
    matcher: Any = getattr(owner, "group_matcher", None)
    if not isinstance(owner, nn.Module) or matcher is None:
        return None
    prefix = "" if owner is model else "backbone."
    own = [(name, None) for name in _names(owner)]
    numbers: dict[str, int] = group_with_matcher(iter(own), matcher(coarse=coarse), reverse=True)
    last = max(numbers.values(), default=0) + (owner is not model)
    names = _names(model)
    return {name: numbers[name.removeprefix(prefix)] if name.startswith(prefix) else last for name in names}


def is_in_classifier(model: nn.Module, name: str) -> bool:
    """Whether a parameter or buffer is of the head: outside the backbone where there is one, else of the classifier."""
    if isinstance(getattr(model, "backbone", None), nn.Module):
        return not name.startswith("backbone.")
    heads = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    return any(name.startswith(f"{head}.") for head in ([heads] if isinstance(heads, str) else heads))


def _names(model: nn.Module) -> list[str]:
    return [name for named in (model.named_parameters(), model.named_buffers()) for name, _ in named]
