"""The contract of a mixer: the operation of a block that moves information between points.

A mixer is an `nn.Module` that a `Block` calls with the features of all points of a stage, a plan and the sets:

    x      (N, C) features of the points, normalized, in the window order of the plan
    plan   which points share a window and where its centers are, see `pointmix.layouts.plan`. The same plan serves all
           blocks of a stage (two alternating plans if the stage shifts its windows)
    sets   which points belong to one set (one image or cloud), see `pointmix.nn.norm.SetIndex`

It returns (N, C) features in the same order. A mixer that only goes through `plan.window_partition`,
`plan.pool_centers`, `plan.broadcast` and `plan.window_reverse`, and honors `plan.valid` and `plan.center_valid`, runs
on images, partial images and clouds alike.

To put a mixer into a network, give `PointBackbone` a `MixerFactory`. A function decorated with
`timm.models.register_model` that returns the network makes it available to `pointmix.create_model` by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.layouts.plan import Plan
from pointmix.nn.norm import SetIndex
from pointmix.profile.macs import Macs, Size


@runtime_checkable
class Mixer(Protocol):
    """What a `Block` and the multiply-add counts need."""

    def __call__(self, x: Float[Tensor, "N C"], plan: Plan, sets: SetIndex) -> Float[Tensor, "N C"]:
        """The mixed features. An `nn.Module` implements this as `forward`."""
        ...

    def macs(self, size: Size) -> Macs:
        """Multiply-adds for one set, by the equations of the paper; see `pointmix.profile.macs`."""
        ...


@runtime_checkable
class ClusteringMixer(Mixer, Protocol):
    """A mixer that also returns the center of each point. `explain` and pictures skip blocks with other mixers."""

    def assignment(self, x: Float[Tensor, "N C"], plan: Plan) -> tuple[Int[Tensor, "N E"], Float[Tensor, "N E"]]:
        """The center of each point in each of E heads, as s * M + m for center m of window s, and the point's weight
        there, both in window order. A mixer in which points exchange with several centers gives that of the largest
        weight, and has an attribute `soft` that is true."""
        ...


MixerFactory = Callable[[int, int], Mixer | None]
"""(stage, dim) -> the mixer of one block of this stage, from 0, with `dim` channels; None: a block without a mixer."""


def check_mixer(mixer: object) -> None:
    """Raise ValueError if a block cannot use it."""
    if mixer is not None and not (isinstance(mixer, nn.Module) and isinstance(mixer, Mixer)):
        what = "no macs(size)" if isinstance(mixer, nn.Module) else "not an nn.Module"
        raise ValueError(f"mixer {type(mixer).__name__} does not fit: {what}; see pointmix.nn.mixers.base")
