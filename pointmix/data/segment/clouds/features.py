"""Features of labeled clouds by name, each divided by its scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from pointmix.data.segment.clouds.config import CloudSettings
from pointmix.data.segment.sample import LabeledCloud
from pointmix.data.source import Readable
from pointmix.io.errors import UnreadableSample
from pointmix.io.names import missing_feature

SAMPLE = 64  # clouds that scales are computed from, spread evenly over the training data

Settings = TypeVar("Settings", bound=CloudSettings)


@runtime_checkable
class Clouds(Readable[LabeledCloud], Protocol):
    """Labeled clouds of a known number."""

    def __len__(self) -> int: ...


def named_feature(cloud: LabeledCloud, name: str) -> Shaped[np.ndarray, "N C"]:
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
    cloud: LabeledCloud,
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
        bad = ~np.isfinite(value).all(1)
        if bad.any():
            raise UnreadableSample(f"{name} holds NaN or infinite values at {bad.sum()} of {len(value)} points")
        parts.append((value / np.float64(scale[name])).astype(np.float32))
    return torch.from_numpy(np.concatenate(parts, axis=1))


def feature_channels(cloud: LabeledCloud, names: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """First channel and end of each feature, side by side as in `scaled_features`."""
    ends = np.cumsum([0, *(named_feature(cloud, name).shape[1] for name in names)]).tolist()
    return dict(zip(names, zip(ends[:-1], ends[1:], strict=True), strict=True))


def fill_feature_scale(cfg: Settings, source: Clouds, indices: Int[np.ndarray, " n"] | None = None) -> Settings:
    """The same settings with a scale for each feature that has none yet, to be kept with a run.

    Colors (rgb): 1 for floats in [0, 1], else 255, or 65535 if a value is above 255. Normals: 1. Others: the standard
    deviation over up to 64 clouds of the training data, or 1 if all values are equal.

    Args:
        source: clouds; those that cannot be read are left out.
        indices: (n,) the ones to train on; None: all.
    Raises:
        ValueError: if a feature is missing in all of them, colors are floats to 1 in some clouds only, or a scale is
            given for a feature that is not used.
    """
    names, given = cfg.features or (), cfg.feature_scale or {}
    if extra := [name for name in given if name not in names]:
        raise ValueError(f"data.feature_scale names {extra[0]}, which is not among data.features: {', '.join(names)}")
    wanted = [name for name in names if name not in given]
    found: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    reason = "there is no cloud"
    indices = np.arange(len(source)) if indices is None else indices
    chosen = np.unique(np.linspace(0, len(indices) - 1, SAMPLE).astype(int)) if wanted and len(indices) else ()
    for index in indices[list(chosen)].tolist():
        try:
            cloud = source.read(index)
            values = [named_feature(cloud, name) for name in wanted]
        except UnreadableSample as error:
            reason = f"{source.name(index)}: {error}"
            continue
        for name, value in zip(wanted, values, strict=True):
            found[name].append(value[np.isfinite(value)])
    if wanted and not found[wanted[0]]:
        raise ValueError(f"data.features {', '.join(wanted)}: no training cloud has them; {reason}")
    scale = {name: given[name] if name in given else _scale(name, found[name]) for name in names}
    return dataclasses.replace(cfg, feature_scale=scale)


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
    return max(scales, default=_color_scale(values[0]))


def _color_scale(values: Shaped[np.ndarray, " M"]) -> float:
    largest = values.max(initial=0)
    return 1.0 if values.dtype.kind == "f" and largest <= 1 + 1e-3 else 255.0 if largest <= 255 else 65535.0
