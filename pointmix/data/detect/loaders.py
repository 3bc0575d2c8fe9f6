"""Loaders of images with objects."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Int

from pointmix.data.cache import Cache
from pointmix.data.dataset import SampleDataset, join_samples
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.join import join_items
from pointmix.data.detect.sample import DetectBatch, ObjectImage
from pointmix.data.detect.source import DetectSource
from pointmix.data.detect.transforms import DetectItem, EvalTransform, TrainTransform
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import EpochBatches, PartBatches
from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.utils.limits import TooLarge


class DetectDataset(SampleDataset[ObjectImage, DetectItem]):
    """Images of a part of a source; see `SampleDataset`.

    Args:
        transform: of training or of evaluation.
        copy_paste: probability that objects of another image of the part are pasted into a training image.
        cache: read every image once, now.
    """

    what = "images"

    def __init__(
        self,
        *,
        source: DetectSource,
        indices: Int[np.ndarray, " n"],
        transform: TrainTransform | EvalTransform,
        seed: int | None,
        copy_paste: float = 0.0,
        cache: bool = False,
    ) -> None:
        super().__init__(source=source, indices=indices, seed=seed)
        self.transform, self.copy_paste, self.num_classes = transform, copy_paste, len(source.classes)
        self.reader = Cache(source, indices.tolist()) if cache else source

    def read(self, index: int) -> ObjectImage:
        sample = self.reader.read(index)
        check_objects(sample, self.num_classes, name=self.source.name(index))
        return sample

    def make(self, raw: ObjectImage, index: int) -> DetectItem:
        if isinstance(self.transform, EvalTransform):
            return self.transform(raw, self.source.name(index))
        return self.transform(raw, self._pasted())

    def _pasted(self) -> ObjectImage | None:
        """A random image whose objects are pasted into another; none if it is damaged, which is counted when its turn
        comes."""
        if not self.copy_paste or float(torch.rand(())) >= self.copy_paste:
            return None
        try:
            return self.read(int(self.indices[int(torch.randint(len(self), ()))]))
        except BadMask:
            raise
        except (UnreadableSample, TooLarge):
            return None


def check_objects(sample: ObjectImage, num_classes: int, *, name: str) -> None:
    """Refuse objects that do not fit their image or the classes.

    Raises:
        BadMask: naming the file, the object and what was expected.
    """
    objects, (width, height) = sample.objects, sample.image.size
    for number, (box, label) in enumerate(zip(objects.boxes, objects.labels, strict=True)):
        if not 0 <= label < num_classes:
            raise BadMask(f"{name}: object {number} has class {label}, expected 0 to {num_classes - 1}")
        x1, y1, x2, y2 = box.tolist()
        inside = max(x1, 0) < min(x2, width) and max(y1, 0) < min(y2, height)
        if not inside or not np.isfinite(box).all():
            corners = ", ".join(f"{value:.10g}" for value in (x1, y1, x2, y2))
            expected = f"x1 < x2, y1 < y2 and a part in the image of {height}x{width} (rows x columns)"
            raise BadMask(f"{name}: object {number} has the box {corners}, expected {expected}")
    for number, mask in enumerate(objects.masks or ()):
        if list(mask["size"]) != [height, width]:
            size = "x".join(map(str, mask["size"]))
            raise BadMask(f"{name}: the mask of object {number} is {size}, its image {height}x{width} (rows x columns)")


def detect_loader(
    cfg: DetectDataConfig,
    source: DetectSource,
    indices: Int[np.ndarray, " n"],
    batches: EpochBatches | PartBatches,
    *,
    masks: bool,
    seed: int | None = None,
) -> BatchLoader[DetectBatch]:
    """A loader over a part of a source: for training with a seed, else for evaluation.

    Args:
        cfg: resolved.
        batches: over len(indices) samples.
        masks: whether objects have masks.
    """
    training = seed is not None
    dataset = DetectDataset(
        source=source,
        indices=indices,
        transform=TrainTransform(cfg, masks) if training else EvalTransform(cfg, masks),
        seed=seed,
        copy_paste=cfg.copy_paste,
        cache=cfg.cache,
    )
    least = cfg.crop_size if training and cfg.crop_size is not None else (1, 1)
    join = partial(join_items, multiple=cfg.size_multiple, least=least)
    return BatchLoader(
        dataset=dataset,
        batches=batches,
        workers=cfg.workers,
        strict=cfg.strict,
        collate=partial(join_samples, join=join),
    )
