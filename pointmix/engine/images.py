"""Training runs on images: their configuration, and what the engine asks of this kind of data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from timm.models import get_pretrained_cfg
from torch import nn

from pointmix.data.images.config import DataConfig, is_partial
from pointmix.data.images.normalize import hide
from pointmix.data.images.resolve import resolve
from pointmix.data.images.splits import ImageSplits, build_data
from pointmix.engine.config import RunConfig
from pointmix.engine.evaluate import check_input, try_input
from pointmix.tasks import Classify
from pointmix.utils.ranges import NONNEGATIVE, PART, SHARE, check_fields


@dataclass(frozen=True)
class MixConfig:
    """Mixing of images and smoothing of labels in a batch."""

    mixup: Annotated[float, NONNEGATIVE] = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: Annotated[float, NONNEGATIVE] = 0.0
    """Alpha of CutMix; 0 is off."""
    switch_prob: Annotated[float, SHARE] = 0.5
    """Chance of CutMix rather than mixup in a batch when both are on."""
    smoothing: Annotated[float, PART] = 0.0
    """Label smoothing."""

    def __post_init__(self) -> None:
        check_fields(self, "mix.")


@dataclass(frozen=True)
class TrainImagesConfig(RunConfig):
    """Train an image classifier."""

    unit: ClassVar[str] = "images"
    root_source: ClassVar[str | None] = "folder"

    data: DataConfig = field(default_factory=DataConfig)
    """The images."""
    mix: MixConfig = field(default_factory=MixConfig)
    """Mixup, CutMix, label smoothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.mix.mixup > 0 or self.mix.cutmix > 0) and self.batch_size % 2:
            raise ValueError(f"batch_size must be even with mixup or cutmix, got {self.batch_size}")
        resolve(self.data)  # refuses what is out of range before anything is read

    def build_splits(self, *, rank: int, world_size: int) -> ImageSplits:
        size = {"batch_size": self.batch_size, "eval_batch_size": self.batch_size}
        return build_data(self.data, **size, seed=self.seed, rank=rank, world_size=world_size)

    def build_task(self, splits: ImageSplits) -> Classify:
        mode = self.model.kwargs.get("coord_mode", "inclusive")
        return Classify(len(splits.classes), **asdict(self.mix), prepare=partial(splits.partial, coord_mode=mode))

    def data_kwargs(self, splits: ImageSplits) -> dict[str, Any]:
        kwargs = {"num_classes": len(splits.classes), "in_chans": splits.in_chans}
        known = get_pretrained_cfg(self.model.name)
        if known is not None and known.fixed_input_size and "img_size" not in self.model.kwargs:
            kwargs["img_size"] = splits.img_size  # the model is built for one size
        return kwargs

    def info(self, splits: ImageSplits) -> dict[str, Any]:
        mean, std = ([float(v) for v in values] for values in (splits.mean, splits.std))
        return {"mean": mean, "std": std, "img_size": splits.img_size}

    def check_input(self, model: nn.Module, splits: ImageSplits) -> None:
        channels, size = splits.in_chans, splits.img_size
        more = {"classes": len(splits.classes), "alone": self.batch_size == 1}
        check_input(model, self.model.name, in_chans=channels, img_size=size, **more)
        if is_partial(splits.config):
            masked = hide(torch.zeros(channels, size, size), torch.eye(size, dtype=torch.bool))
            what = "images with hidden pixels (data.keep_ratio, data.mask_root)"
            try_input(model, self.model.name, splits.partial(masked[None]), what=what, **more)

    def draw_clusters(self, model: nn.Module, splits: ImageSplits, path: Path) -> None:
        from pointmix.explain import draw_clusters

        first: dict[int, torch.Tensor] = {}  # one test image of each of the first six classes met
        device = next(model.parameters()).device
        for images, targets in islice(iter(splits.test), 32):
            for image, target in zip(images.to(device), targets.tolist(), strict=True):
                if len(first) < 6:
                    first.setdefault(target, image)
        images = torch.stack(list(first.values()))
        seen = self.build_task(splits).prepare(images)
        draw_clusters(model, seen, path, mean=splits.mean, std=splits.std, classes=splits.classes)
