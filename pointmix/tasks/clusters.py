"""Whether a network has clusters to draw."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pointmix.nn.block import Block


def nothing_to_draw(model: nn.Module, name: str, *, methods: Sequence[str] = ("explain",)) -> str | None:
    """Why there are no clusters of a network to draw; None if there are.

    Args:
        name: what to call the network.
        methods: of which drawing needs one.
    """
    if not any(hasattr(model, method) for method in methods):
        return f"{name} has no explain()"
    mixers = [module.mixer for module in model.modules() if isinstance(module, Block)]
    if mixers and not any(hasattr(mixer, "assignment") for mixer in mixers):
        return f"{name} clusters in none of its blocks"
    return None
