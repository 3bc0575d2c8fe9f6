"""Settings that the classification of images and of clouds have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pointmix.utils.ranges import NONNEGATIVE, check_fields


@dataclass(frozen=True)
class ClassLossConfig:
    """The loss."""

    class_weights: tuple[Annotated[float, NONNEGATIVE], ...] | Literal["balanced"] | None = None
    """Weight of each class in the cross-entropy, in the order of the labels; balanced: inversely proportional to its
    share of the training samples. null: 1."""

    def __post_init__(self) -> None:
        check_fields(self, "loss.")


def check_balance(config: ClassLossConfig, *, balanced: bool) -> None:
    """Refuse weights that correct for what balanced sampling has corrected."""
    if config.class_weights == "balanced" and balanced:
        raise ValueError("loss.class_weights is balanced and data.balanced is true; expected one of them")
