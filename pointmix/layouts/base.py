"""What layouts read of a point set. `PointSet` itself imports the layouts."""

from __future__ import annotations

from typing import Any, Protocol

from jaxtyping import Float, Int
from torch import Tensor


class Points(Protocol):
    """N points in B sets, as `pointmix.pointset.PointSet`."""

    @property
    def pos(self) -> Float[Tensor, "N D"]: ...

    @property
    def feat(self) -> Float[Tensor, "N C"]: ...

    @property
    def ptr(self) -> Int[Tensor, "B+1"]: ...

    @property
    def layout(self) -> Any: ...
