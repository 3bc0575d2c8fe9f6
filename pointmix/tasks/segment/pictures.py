"""The picture of a finished run: predictions beside the truth for a few test samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.data.images.config import filled
from pointmix.data.loader import BatchLoader
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.resolve import is_cloud
from pointmix.data.segment.sample import IGNORE, SegmentBatch
from pointmix.pointset import PointSet
from pointmix.tasks.protocols import Info
from pointmix.tasks.segment.inference.base import Infer

NUMBER = 4  # samples in the picture, spread evenly over the test data


@torch.no_grad()
def draw_predictions(
    path: Path, model: nn.Module, infer: Infer, test: BatchLoader[SegmentBatch], cfg: SegmentDataConfig, info: Info
) -> None:
    """Draw some test samples, their labels, and what the network says.

    Args:
        path: of the PNG.
        model: in evaluation mode.
        infer: how it is applied to whole samples.
        test: the test data, with a sample that can be read.
        cfg, info: of the run.
    """
    from pointmix.explain.segment_clouds import draw_cloud_predictions
    from pointmix.explain.segment_images import draw_image_predictions

    device = next(model.parameters()).device
    samples, names, predicted = [], [], []
    for position in np.unique(np.linspace(0, len(test.samples) - 1, NUMBER).astype(int)).tolist():
        sample, _ = test.samples[0, position]
        if sample is None:
            continue
        category = None if sample.category is None else sample.category.to(device)
        predicted.append(infer.labels(model, sample.points.to(device), category).label.cpu())
        samples.append(sample)
        names.append(Path(test.samples.source.name(int(test.samples.indices[position]))).name)
    given: dict[str, Any] = {"classes": info["classes"], "palette": info["palette"], "names": names}
    if is_cloud(cfg):
        clouds = [sample.points.pos.numpy() for sample in samples]
        labels = [sample.labels.numpy() for sample in samples]
        up = "-y" if cfg.rgbd == "cloud" else filled(cfg.up)  # a camera's y points down
        draw_cloud_predictions(path, clouds, labels, [p.numpy() for p in predicted], up=up, **given)
        return
    images = [color_image(sample.points, cfg) for sample in samples]
    truth = [label_map(sample.points, sample.labels) for sample in samples]
    found = [label_map(sample.points, labels) for sample, labels in zip(samples, predicted, strict=True)]
    draw_image_predictions(path, images, truth, found, **given)


def color_scale(cfg: SegmentDataConfig) -> dict[str, list[float]]:
    """Mean and standard deviation of each color channel."""
    channels = filled(cfg.in_chans)
    return {k: np.broadcast_to(filled(v), channels).tolist() for k, v in (("mean", cfg.mean), ("std", cfg.std))}


def color_image(points: PointSet, cfg: SegmentDataConfig) -> Float[np.ndarray, "H W 3"]:
    """The colors of one image in [0, 1], NaN where pixels are hidden."""
    channels, mean, std = filled(cfg.in_chans), filled(cfg.mean), filled(cfg.std)
    image = _as_map(points.feat[:, :channels], points, fill=float("nan")).numpy()  # (H, W, C)
    return np.broadcast_to((image * std + mean).clip(0, 1), (*image.shape[:2], 3)).copy()


def label_map(points: PointSet, labels: Int[Tensor, " N"]) -> Int[np.ndarray, "H W"]:
    """The labels of one image, `IGNORE` where pixels are hidden."""
    return _as_map(labels[:, None].float(), points, fill=IGNORE)[..., 0].numpy().astype(np.int64)


def _as_map(values: Float[Tensor, "N C"], points: PointSet, *, fill: float) -> Float[Tensor, "H W C"]:
    return points.with_feat(values).to_image(fill)[0].permute(1, 2, 0)
