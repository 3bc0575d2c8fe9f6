"""The scale of clouds: whether input is in the unit and the place of the training data."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float

FACTOR = 100.0  # of sizes and distances that are worth a warning


class ScaleCheck:
    """Warns of input of another scale than the training data's, or far from the origin; once.

    Args:
        trained: median diagonal of the training data; None if it is not known.
        normalize: `data.normalize`.
    """

    def __init__(self, trained: float | None, normalize: str | None) -> None:
        self.trained, self.normalize, self.warned = trained, normalize, False

    def __call__(self, what: str, size: float, distance: float) -> None:
        """Check clouds; arguments: `scale_warning`."""
        warning = scale_warning(what, size, distance, self.trained, self.normalize)
        if warning and not self.warned:
            warnings.warn(warning, stacklevel=2)
            self.warned = True


def measure(pos: Float[np.ndarray, "N D"]) -> tuple[float, float]:
    """Diagonal of the bounding box, and largest coordinate, of the points that are finite; 0 without any."""
    pos = pos[np.isfinite(pos).all(1)].astype(np.float64)
    if not len(pos):
        return 0.0, 0.0
    return float(np.linalg.norm(np.ptp(pos, axis=0))), float(np.abs(pos).max())


def scale_warning(what: str, size: float, distance: float, trained: float | None, normalize: str | None) -> str | None:
    """What to warn of in clouds of another scale than the training data's, or far from the origin.

    Args:
        what: the clouds.
        size, distance: diagonal and largest coordinate of the clouds, see `measure`.
        trained: median diagonal of the training data; None if it is not known.
        normalize: `data.normalize`.
    """
    if trained and size and not trained / FACTOR <= size <= trained * FACTOR:
        return f"{what}: {size:.3g} from corner to corner, the training data {trained:.3g}; are the units the same?"
    if normalize == "none" and distance > FACTOR * max(size, trained or 0.0) > 0:
        return (
            f"{what}: up to {distance:.6g} from the origin with a size of {size:.3g}, and data.normalize is none; "
            "center brings clouds to the origin"
        )
    return None
