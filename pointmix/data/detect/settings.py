"""Checks of settings and of what files hold, for several sources."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from pointmix.data.detect.annotations import Annotation, LeftOut
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.image_files import AnnotatedImage
from pointmix.data.splits import shortened


def chosen_classes(config: DetectDataConfig, names: Mapping[int, str], where: object) -> dict[int, int]:
    """Label of each category that is read: those of `data.classes`, or all in the order of their numbers.

    Args:
        names: of the categories by their numbers.
        where: file that names them, for messages.

    Raises:
        ValueError: there is none, or a setting names one that is not there, or two have the same name.
    """
    if not names:
        raise ValueError(f"{where} names no classes, expected at least one")
    if twice := sorted({name for name in names.values() if list(names.values()).count(name) > 1}):
        raise ValueError(f"{where} names the class {shortened(twice)} twice, expected different names")
    if config.classes is None:
        return {number: label for label, number in enumerate(sorted(names))}
    number_of = {name: number for number, name in names.items()}
    if missing := [name for name in config.classes if name not in number_of]:
        raise ValueError(f"data.classes: no class {shortened(missing)} in {where}; it has {shortened(list(number_of))}")
    return {number_of[name]: label for label, name in enumerate(config.classes)}


def with_masks(
    config: DetectDataConfig, images: Sequence[AnnotatedImage], left_out: LeftOut, where: str
) -> tuple[list[AnnotatedImage], bool]:
    """The images, and whether they have masks: if every object has a segment, or `data.masks` asks for them. Objects
    without one are then left out. Warns if no masks are read because some objects have none."""
    every = [one.segment is not None for image in images for one in image.annotations]
    masks = all(every) and bool(every) if config.masks is None else config.masks
    if config.masks is None and any(every) and not masks:
        what = f"{len(every) - sum(every)} of {len(every)} objects have no mask, so none are read"
        warnings.warn(f"{where}: {what}; data.masks true leaves these objects out", stacklevel=3)
    if not masks or all(every):
        return list(images), masks
    kept = []
    for image in images:
        annotations: list[Annotation] = []
        for one in image.annotations:
            if one.segment is None:
                left_out.add("objects without a mask", str(image.path))
            else:
                annotations.append(one)
        kept.append(AnnotatedImage(image.path, image.image_id, annotations, image.size))
    return kept, masks
