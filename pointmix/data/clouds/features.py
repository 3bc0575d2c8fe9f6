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
from pointmix.data.clouds.scale import measure
from pointmix.data.source import Readable
from pointmix.io.errors import UnreadableSample
from pointmix.io.names import missing_feature

SAMPLE = 64  # clouds that scales are computed from, spread evenly over the training data


@runtime_checkable
class FeatureSettings(Protocol):
    """The settings of features, a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def features(self) -> tuple[str, ...] | None: ...

    @property
    def feature_scale(self) -> dict[str, float] | None: ...


Settings = TypeVar("Settings", bound=FeatureSettings)


class SizedClouds(Readable[NamedCloud], Protocol):
    """Clouds of a known number."""

    def __len__(self) -> int: ...


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

    Raises:
        UnreadableSample: as `named_feature`, or if a value is not finite.
    """
    parts = [np.zeros((len(cloud.pos), 0), np.float32)[index]]
    for name in names:
        value = named_feature(cloud, name)[index]
        if name == "rgb":
            _check_colors(value, scale[name])
        bad = ~np.isfinite(value).all(1)
        if bad.any():
            raise UnreadableSample(f"{name} holds NaN or infinite values at {bad.sum()} of {len(value)} points")
        parts.append((value / np.float64(scale[name])).astype(np.float32))
    return torch.from_numpy(np.concatenate(parts, axis=1))


def feature_channels(cloud: NamedCloud, names: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """First channel and end of each feature, side by side as in `scaled_features`."""
    ends = np.cumsum([0, *(named_feature(cloud, name).shape[1] for name in names)]).tolist()
    return dict(zip(names, zip(ends[:-1], ends[1:], strict=True), strict=True))


def survey(
    cfg: FeatureSettings, source: Readable[NamedCloud], indices: Int[np.ndarray, " n"] | Sequence[int]
) -> Survey:
    """Read up to 64 clouds, spread evenly over the training data, for the scale of their features and positions.

    Colors (rgb): 1 for floats in [0, 1], else 255, or 65535 if a value is above 255. Normals: 1. Others: the standard
    deviation, or 1 if all values are equal. A scale that is given stays.

    Args:
        source: clouds; those that cannot be read are left out.
        indices: (n,) the ones to train on.

    Raises:
        ValueError: if a feature is missing in all of them, colors are floats to 1 in some clouds only, or a scale is
            given for a feature that is not used.
    """
    names, given = cfg.features or (), cfg.feature_scale or {}
    if extra := [name for name in given if name not in names]:
        raise ValueError(f"data.feature_scale names {extra[0]}, which is not among data.features: {', '.join(names)}")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names if name not in given}
    source = copy.copy(source)  # whose files do not stay open in this process
    measured, sizes, failed = [], [], []
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
        measured.append(measure(cloud.pos))
    if names and not sizes:
        reason = failed[-1] if failed else "there is no cloud"
        raise ValueError(f"data.features {', '.join(names)}: no training cloud has them; {reason}")
    scale = {name: given[name] if name in given else _scale(name, found[name]) for name in names}
    extent, distance = np.median(measured, axis=0).tolist() if measured else (None, 0.0)
    return Survey(scale, channels, extent, distance, sizes, failed)


def fill_feature_scale(cfg: Settings, source: SizedClouds, indices: Int[np.ndarray, " n"] | None = None) -> Settings:
    """The same settings with a scale for each feature, see `survey`; nothing is read if all are given."""
    names, given = cfg.features or (), cfg.feature_scale or {}
    if set(names) == set(given):
        return dataclasses.replace(cfg, feature_scale={name: given[name] for name in names})
    chosen: Sequence[int] | Int[np.ndarray, " n"] = range(len(source)) if indices is None else indices
    return dataclasses.replace(cfg, feature_scale=survey(cfg, source, chosen).feature_scale)


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
