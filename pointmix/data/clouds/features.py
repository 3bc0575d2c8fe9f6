"""Features of clouds by name, each divided by its scale, and what a run keeps of the clouds it was trained on."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from pointmix.data.clouds.named import NamedCloud
from pointmix.data.clouds.scale import ScaleCheck, measure
from pointmix.data.source import Readable
from pointmix.io.errors import UnreadableSample
from pointmix.io.names import missing_feature

COLOR_SCALES = (1.0, 255.0, 65535.0)
SAMPLE = 64  # clouds that scales are computed from, spread evenly over the training data


@runtime_checkable
class FeatureSettings(Protocol):
    """The settings of features, a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def features(self) -> tuple[str, ...] | None: ...

    @property
    def feature_scale(self) -> dict[str, float] | None: ...

    @property
    def normalize(self) -> str | None: ...


Settings = TypeVar("Settings", bound=FeatureSettings)


class Survey(NamedTuple):
    """What is known of the training data after reading some of them.

    Args:
        feature_scale: what each feature is divided by.
        channels: first channel and end of each feature, side by side.
        extent: median diagonal of the bounding boxes, in the unit of the positions; None if no cloud could be read.
        distance: median over the clouds of the largest coordinate; 0 if none could be read.
        sizes: points of each cloud that was read.
        failed: name and reason of each that could not be read.
    """

    feature_scale: dict[str, float]
    channels: dict[str, tuple[int, int]]
    extent: float | None
    distance: float
    sizes: list[int]
    failed: list[str]


def named_feature(cloud: NamedCloud, name: str) -> Shaped[np.ndarray, "N C"]:
    """A feature as in the file.

    Raises:
        UnreadableSample: if the cloud has none of this name, or it is not (N,) or (N, C) numbers.
    """
    if name not in cloud.features:
        raise missing_feature(name, cloud.features)
    value, points = cloud.features[name], len(cloud.pos)
    if value.dtype.kind not in "uifb" or value.ndim not in (1, 2) or len(value) != points:
        raise UnreadableSample(f"{name} is {value.shape} {value.dtype}, expected numbers ({points},) or ({points}, C)")
    return value.reshape(points, -1)


def scaled_features(
    cloud: NamedCloud,
    names: tuple[str, ...],
    scale: Mapping[str, float],
    index: Int[np.ndarray, " n"] | slice = slice(None),
) -> Float[Tensor, "n C"]:
    """The features of some points side by side in the order of `names`, each divided by its scale, float32.

    Colors are divided by what their own file tells, so that those of files of 8 and of 16 bits are alike; where it
    does not, or a scale is none of 1, 255 and 65535, by the scale.

    Raises:
        UnreadableSample: as `named_feature`, or if a value is not finite.
    """
    parts = [np.zeros((len(cloud.pos), 0), np.float32)[index]]
    for name in names:
        value, divisor = named_feature(cloud, name)[index], scale[name]
        if name == "rgb" and cloud.color_scale is not None and divisor in COLOR_SCALES:
            divisor = cloud.color_scale
        elif name == "rgb":
            _check_colors(value, divisor)
        bad = ~np.isfinite(value).all(1)
        if bad.any():
            raise UnreadableSample(f"{name} holds NaN or infinite values at {bad.sum()} of {len(value)} points")
        parts.append((value / np.float64(divisor)).astype(np.float32))
    return torch.from_numpy(np.concatenate(parts, axis=1))


def feature_channels(cloud: NamedCloud, names: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """First channel and end of each feature, side by side as in `scaled_features`."""
    ends = np.cumsum([0, *(named_feature(cloud, name).shape[1] for name in names)]).tolist()
    return dict(zip(names, zip(ends[:-1], ends[1:], strict=True), strict=True))


def survey(
    cfg: FeatureSettings, source: Readable[NamedCloud], indices: Int[np.ndarray, " n"] | Sequence[int]
) -> Survey:
    """Read up to 64 clouds, spread evenly over the training data, for the scale of their features and positions.

    Colors (rgb): 1 for floats in [0, 1], else 255, or 65535 if a value is above 255; of clouds whose files tell it, the
    largest. Normals: 1. Others: the standard deviation, or 1 if all values are equal. A scale that is given stays.

    Args:
        source: clouds; those that cannot be read are left out.
        indices: (n,) the ones to train on.

    Raises:
        ValueError: if a feature is missing in all of them, colors are in different ranges and their files do not tell
            which, or a scale is given for a feature that is not used.
    """
    names, given = cfg.features or (), cfg.feature_scale or {}
    if extra := [name for name in given if name not in names]:
        raise ValueError(f"data.feature_scale names {extra[0]}, which is not among data.features: {', '.join(names)}")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names if name not in given}
    source = copy.copy(source)  # whose files do not stay open in this process
    measured, sizes, failed = [], [], []
    told: set[float] = set()
    channels: dict[str, tuple[int, int]] = {}
    chosen = np.unique(np.linspace(0, len(indices) - 1, SAMPLE).astype(int)) if len(indices) else ()
    for index in (int(indices[i]) for i in chosen):
        try:
            cloud = source.read(index)
            values = {name: named_feature(cloud, name) for name in names}
        except UnreadableSample as error:
            failed.append(f"{source.name(index)}: {error}")
            continue
        if not isinstance(cloud, NamedCloud):
            raise TypeError(f"{source.name(index)} is a {type(cloud).__name__}, expected a NamedCloud")
        for name in found:
            found[name].append(values[name][np.isfinite(values[name])])
        channels = channels or feature_channels(cloud, names)
        sizes.append(len(cloud.pos))
        if cloud.color_scale is not None:
            told.add(cloud.color_scale)
        measured.append(measure(cloud.pos))
    if names and not sizes:
        reason = failed[-1] if failed else "there is no cloud"
        raise ValueError(f"data.features {', '.join(names)}: no training cloud has them; {reason}")
    scale = {name: _scale(name, found[name]) for name in found if not (name == "rgb" and told)}
    scale = {name: given.get(name) or scale.get(name) or max(told) for name in names}
    extent, distance = np.median(measured, axis=0).tolist() if measured else (None, 0.0)
    return Survey(scale, channels, extent, distance, sizes, failed)


def surveyed(
    cfg: Settings,
    source: Readable[NamedCloud],
    indices: Int[np.ndarray, " n"] | Sequence[int],
    *,
    quiet: bool = False,
) -> tuple[Settings, Survey]:
    """The settings with a scale for each feature, and the survey of the training data. Arguments and errors: `survey`.

    Args:
        quiet: without warnings of clouds that cannot be read and of those far from the origin.
    """
    found = survey(cfg, source, indices)
    if not quiet:
        if found.failed:
            what = f"{len(found.failed)} of {len(found.failed) + len(found.sizes)} training clouds cannot be used"
            warnings.warn(f"{what}; {found.failed[0]}", stacklevel=3)
        ScaleCheck(None, cfg.normalize)("training clouds", found.extent or 0.0, found.distance)
    return dataclasses.replace(cfg, feature_scale=found.feature_scale), found


def check_scale(
    cfg: Settings,
    source: Readable[NamedCloud],
    indices: Int[np.ndarray, " n"] | Sequence[int],
    trained: float | None,
) -> None:
    """Warn of test clouds of another scale than the training data's; `trained` as in `ScaleCheck`."""
    found = survey(dataclasses.replace(cfg, features=(), feature_scale=None), source, indices)
    ScaleCheck(trained, cfg.normalize)("test clouds", found.extent or 0.0, found.distance)


def _scale(name: str, values: list[Shaped[np.ndarray, "..."]]) -> float:
    """The scale of a feature with these values, an array a cloud."""
    if name == "normal":
        return 1.0
    if name != "rgb":
        return float(np.concatenate(values).std(dtype=np.float64)) or 1.0
    scales = {_color_scale(value) for value in values if value.any()}
    if len(scales) > 1 and 1.0 in scales:
        raise ValueError(
            "rgb is from 0 to 1 in some clouds and beyond in others, expected one range; see data.features"
        )
    if 65535.0 in scales and any(value.dtype == np.uint8 for value in values):
        raise ValueError("rgb is of 8 bits in some clouds and beyond 255 in others, expected one range")
    return max(scales, default=_color_scale(values[0]))


def _check_colors(values: Shaped[np.ndarray, "n C"], scale: float) -> None:
    """Refuse colors beyond the range that the scale was found from, and warn of those that it makes nearly black."""
    largest = float(values.max(initial=0)) if values.dtype.kind in "uif" else 0.0
    is_float = values.dtype.kind == "f"
    if scale in (1.0, 255.0, 65535.0) and largest > scale * 1.01 and not (is_float and values.min() < 0):
        raise UnreadableSample(f"rgb is up to {largest:g}, expected at most {scale:g}, as in training")
    if scale > 1 and is_float and 0 < largest <= 1 and (values % 1).any():
        warnings.warn(f"rgb of a cloud is from 0 to 1, in the training data from 0 to {scale:g}", stacklevel=4)


def _color_scale(values: Shaped[np.ndarray, " M"]) -> float:
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if values.dtype.kind == "f" and (low < 0 or high <= 1 + 1e-3):  # normalized already
        return 1.0
    if low < 0 or high > 65535:
        raise ValueError(f"rgb is from {low:g} to {high:g}, expected up to 1, 255 or 65535, none negative")
    return 255.0 if high <= 255 else 65535.0
