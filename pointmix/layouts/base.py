"""Types that the layouts share. `PointSet` itself imports the layouts, so they know it by a protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypedDict, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    Slice = slice[int | None, int | None, None]
else:
    Slice = slice  # cannot be subscripted at run time


@runtime_checkable
class Points(Protocol):
    """N points in B sets, such as a `pointmix.pointset.PointSet`."""

    @property
    def pos(self) -> Float[Tensor, "N D"]: ...

    @property
    def feat(self) -> Float[Tensor, "N C"]: ...

    @property
    def ptr(self) -> Int[Tensor, "B1"]: ...

    @property
    def layout(self) -> object: ...


class PlanOptions(TypedDict, total=False):
    """Optional arguments of the layouts' `plan`, see `Grid.plan`."""

    pad: str | None
    shift: bool
    table_size: int | None
    global_centers_per_side: int | None
