"""A cloud as its file holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped


@dataclass(frozen=True)
class NamedCloud:
    """A cloud with features by name.

    Args:
        pos: (N, 3) positions as in the file, in its unit.
        features: name -> (N,) or (N, C) as in the file, such as "rgb", "normal", "intensity".
    """

    pos: Float[np.ndarray, "N 3"]
    features: Mapping[str, Shaped[np.ndarray, "N ..."]]

    def subset(self, chosen: Bool[np.ndarray, " N"], names: Iterable[str]) -> NamedCloud:
        """Some of the points, with the features of these names."""
        return NamedCloud(self.pos[chosen], {name: self.features[name][chosen] for name in names})
