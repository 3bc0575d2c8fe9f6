"""A trained network on the test split of its data: whole or partial images, whole or thinned clouds."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.splits import build_points_test
from pointmix.data.images.config import DataConfig, is_partial, keep_range
from pointmix.data.images.partial import partial_points
from pointmix.data.images.splits import build_test
from pointmix.data.loader import BatchLoader
from pointmix.engine.evaluate import check_input, evaluate
from pointmix.engine.points import check_votes, voting
from pointmix.tasks import Classify, ClassifyPoints


def measure_images(
    model: nn.Module, info: dict[str, Any], cfg: DataConfig, *, batch_size: int, device: torch.device
) -> dict[str, Any]:
    """Metrics of a network on the test split of one configuration, with the number of images and what was skipped.

    Args:
        model, info: as `pointmix.engine.inference.open_model` gives them.

    Raises:
        FileNotFoundError, ValueError: if data or model are not as the configuration says; one line.
    """
    test, classes = build_test(cfg, batch_size=batch_size)
    _check_classes(info, classes)
    check_input(model, info["name"], in_chans=cfg.in_chans, img_size=cfg.img_size, classes=len(classes))
    task = Classify(len(classes))
    if is_partial(cfg):
        if not hasattr(model, "explain"):
            raise ValueError(f"images with hidden pixels need a model of points; {info['name']} takes whole ones only")
        mode = getattr(model, "coord_mode", "inclusive")
        task = Classify(len(classes), prepare=lambda images: partial_points(images, coord_mode=mode))
    result = evaluate(model, test, task=task, device=device)
    low, high = keep_range(cfg)
    about = {"model": info["name"], "weights": info["path"], "keep": low if low == high else [low, high]}
    about |= {"mask": cfg.mask_root or (cfg.mask if low < 1 else None)}
    return {**about, **result, "images": _seen(test), "skipped": _skipped(test)}


def measure_clouds(
    model: nn.Module,
    info: dict[str, Any],
    cfg: PointDataConfig,
    *,
    keep: float = 1.0,
    votes: int = 1,
    batch_size: int,
    device: torch.device,
) -> dict[str, Any]:
    """The same on clouds.

    Args:
        keep: share of the points of each cloud that is left, see `build_points_test`.
        votes: see `pointmix.tasks.voting`.
    """
    check_votes(votes, cfg)
    trained = info["data"].get("features", "none")
    if cfg.features != trained:
        raise ValueError(f"{info['path']} takes data.features {trained}, got {cfg.features}")
    names = info["classes"]
    if cfg.source == "scanobjectnn" and cfg.classes is None:  # the test split of a few classes may miss some of them
        named = dataclasses.replace(cfg, classes=tuple(names))
        test, classes = build_points_test(named, batch_size=batch_size, keep_ratio=keep)
        classes = test.dataset.source.stated_classes or classes
    else:
        test, classes = build_points_test(cfg, batch_size=batch_size, keep_ratio=keep)
    _check_classes(info, classes)
    network = model if votes == 1 else voting(model, votes, cfg)
    result = evaluate(network, test, task=ClassifyPoints(len(names)), device=device)
    about = {"model": info["name"], "weights": info["path"], "keep": keep, "votes": votes, "classes": names}
    return {**about, **result, "clouds": _seen(test), "skipped": _skipped(test)}


def _check_classes(info: dict[str, Any], classes: list[str]) -> None:
    if info["classes"] != classes:
        raise ValueError(
            f"{info['path']} knows {_listed(info['classes'])}, the data has {_listed(classes)}; "
            "expected the same, in the same order"
        )


def _listed(names: list[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _seen(test: BatchLoader) -> int:
    return len(test.dataset) - len(test.failed)


def _skipped(test: BatchLoader) -> list[list[str]]:
    return [list(failure) for failure in sorted(test.failed.items())]
