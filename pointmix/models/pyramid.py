"""Backbones of dense tasks: the points of all stages, of our networks or of timm's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Protocol, TypedDict, cast, runtime_checkable

import timm
import torch
import torch.nn.functional as F
from timm.models._features import FeatureInfo
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn

from pointmix.layouts.grid import Grid
from pointmix.models import create_model, list_models
from pointmix.models.inputs import as_points
from pointmix.pointset import PointSet
from pointmix.profile.macs import Macs, Part, Size, count_layers, parameters

ONLY_OF_MAPS = ("out_indices", "feature_cls", "pretrained")  # arguments that change no name of a layer
FLAT = re.compile(r"^(\w+?)_(\d+)\.")  # in a network of maps stages.0. is stages_0.
FIRST_STRIDE = 4  # of the finest stage that is taken from a network of timm, as of our networks of images


class StageInfo(TypedDict):
    """Channels and total stride of a stage."""

    num_chs: int
    reduction: int


@runtime_checkable
class Pyramid(Protocol):
    """A backbone that gives the points of all of its stages, each half as fine as the one before."""

    feature_info: list[StageInfo]

    def forward_intermediates(
        self, x: PointSet, *, norm: bool = False, intermediates_only: bool = False
    ) -> list[PointSet]: ...
    def as_points(self, x: PointSet) -> PointSet: ...
    def parts(self, points: PointSet) -> Iterator[Part]: ...
    def set_grad_checkpointing(self, enable: bool = True) -> None: ...
    def no_weight_decay(self) -> set[str]: ...


class TimmPyramid(nn.Module):
    """The maps of a network of timm as grids. Images are padded with zeros to a multiple of the total stride.

    Args:
        name: of the network.
        in_chans: channels of the input.
        **kwargs: arguments of the network.

    Raises:
        ValueError: if it gives no maps of strides 4, 8, and so on.
    """

    def __init__(self, name: str, *, in_chans: int, **kwargs: object) -> None:
        super().__init__()
        self.body = timm.create_model(name, features_only=True, in_chans=in_chans, **kwargs)  # type: ignore[arg-type]
        self.arguments = {"model_name": name, "in_chans": in_chans, **kwargs}
        self.channels_last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"  # as of Swin
        info = cast(FeatureInfo, self.body.feature_info)
        strides, channels = info.reduction(), info.channels()
        self.taken = [i for i, stride in enumerate(strides) if stride >= FIRST_STRIDE]
        expected = [FIRST_STRIDE * 2**i for i in range(len(self.taken))]
        if len(self.taken) < 2 or [strides[i] for i in self.taken] != expected:
            raise ValueError(f"{name} gives maps of strides {strides}; an FPN needs strides 4, 8, and so on")
        self.feature_info = [StageInfo(num_chs=channels[i], reduction=strides[i]) for i in self.taken]

    def as_points(self, x: PointSet) -> PointSet:
        return x

    def forward_intermediates(
        self, x: PointSet, *, norm: bool = False, intermediates_only: bool = False
    ) -> list[PointSet]:
        """The maps of all stages; the keyword arguments are those of our networks and have no effect.

        Raises:
            ValueError: for anything but whole images of one size.
        """
        if not isinstance(x.layout, Grid):
            raise ValueError(f"a network of timm takes whole images of one size, got {x.layout!r}")
        image, total = cast(Tensor, x.to_image()), self.feature_info[-1]["reduction"]
        image = F.pad(image, (0, -image.shape[3] % total, 0, -image.shape[2] % total))
        maps, stages = self.body(image), []
        for i, info in zip(self.taken, self.feature_info, strict=True):
            height, width = self._size(x.layout, info["reduction"])
            y = maps[i].permute(0, 3, 1, 2) if self.channels_last else maps[i]  # (B, C, H', W')
            stages.append(PointSet.from_batch(y[:, :, :height, :width]))
        return stages

    def _size(self, grid: Grid, stride: int) -> tuple[int, int]:
        return -(-grid.size[0] // stride), -(-grid.size[1] // stride)

    def parts(self, points: PointSet) -> Iterator[Part]:
        """The whole network's parameters and multiply-adds at the first stage, and the sizes of all."""
        assert isinstance(points.layout, Grid)
        macs, number = count_layers(self.body, cast(Tensor, points.to_image())), parameters(self.body)
        for i, info in enumerate(self.feature_info):
            side = self._size(points.layout, info["reduction"])
            size = Size(len(points.pos), side[0] * side[1], slots=0, windows=0, centers=0, side=side)
            yield Part(f"maps {i + 1}", info["num_chs"], 0 if i else number, Macs() if i else macs, size)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        cast(Pyramid, self.body).set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        return set()

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """The layer of a parameter, from its name: that in the classifier, which timm's networks of maps do not name.

        Raises:
            ValueError: if the classifier names no layers either.
        """
        arguments = {key: value for key, value in self.arguments.items() if key not in ONLY_OF_MAPS}
        with torch.random.fork_rng(devices=()):  # as if it was never built
            whole = timm.create_model(**arguments)  # type: ignore[arg-type]
        matcher = cast(Callable[[bool], dict[str, object]] | None, getattr(whole, "group_matcher", None))
        if matcher is None:
            raise ValueError(f"{self.arguments['model_name']} does not name its layers (no group_matcher)")
        named = ((name, None) for name, _ in (*whole.named_parameters(), *whole.named_buffers()))
        layers: dict[str, int] = group_with_matcher(named, matcher(coarse), reverse=True)

        def layer(name: str) -> int:
            name = name.removeprefix("body.")
            return layers[name] if name in layers else layers[FLAT.sub(r"\1.\2.", name)]

        return layer


class DenseModel(nn.Module):
    """A `Pyramid` under a head of a dense task.

    Args:
        backbone: gives the points of its stages; its input is a `PointSet`.
        in_chans: feature channels of the input.
        coord_dims: coordinates of a position; None for any.
        coord_mode: coordinates of the pixels of an image batch, see `PointSet.from_image`.
    """

    def __init__(self, backbone: nn.Module, *, in_chans: int, coord_dims: int | None, coord_mode: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.in_chans, self.coord_dims, self.coord_mode = in_chans, coord_dims, coord_mode

    def as_points(self, x: Tensor | PointSet) -> PointSet:
        """The input as points in the precision of the weights.

        Raises:
            ValueError: if it has other channels or dimensions than the network takes.
        """
        dtype = next(self.parameters()).dtype
        return as_points(x, dtype=dtype, in_chans=self.in_chans, coord_dims=self.coord_dims, coord_mode=self.coord_mode)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's blocks in the backward pass instead of storing their activations."""
        cast(Pyramid, self.backbone).set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, beyond the vectors, which optimizers exclude anyway."""
        return {f"backbone.{name}" for name in cast(Pyramid, self.backbone).no_weight_decay()}


def create_pyramid(name: str, *, in_chans: int, **kwargs: object) -> tuple[nn.Module, int | None, str]:
    """A `Pyramid`, the coordinates of a position that it takes (None for any), and its `coord_mode`.

    Args:
        name: one of our models or of timm's.
        in_chans: channels of the input, besides coordinates.
        **kwargs: arguments of the model.

    Raises:
        ValueError: there is no such model, or its maps are not of strides 4, 8, and so on.
        TypeError: the model does not take one of the arguments.
    """
    if name in list_models():
        backbone = create_model(name, in_chans=in_chans, pyramid=True, **kwargs)
        return backbone, cast(int, backbone.coord_dims), getattr(backbone, "coord_mode", "inclusive")
    if timm.is_model(name):
        return TimmPyramid(name, in_chans=in_chans, **kwargs), None, "inclusive"
    raise ValueError(f"no model {name!r}; ours are {', '.join(list_models())}; timm's are in timm.list_models()")
