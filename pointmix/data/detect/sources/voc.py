"""PASCAL VOC, and other data with an xml file an image in its form."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pointmix.data.detect import masks as rle
from pointmix.data.detect.annotations import Annotation, LeftOut, to_objects
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.image_files import AnnotatedFiles, AnnotatedImage
from pointmix.data.detect.sample import Objects
from pointmix.data.detect.source import register_detect_source
from pointmix.data.detect.voc_xml import read_voc
from pointmix.data.images.mask_values import read_values
from pointmix.data.paths import existing, read_lines
from pointmix.data.segment.sources.voc import CLASSES
from pointmix.io.errors import BadMask
from pointmix.io.image_files import MODES

XML, IMAGES, LISTS, MASK_LISTS, MASKS = (
    *("Annotations", "JPEGImages", "ImageSets/Main"),
    *("ImageSets/Segmentation", "SegmentationObject"),
)
BORDER = 255  # in masks: outlines, which belong to no object
HINT = ", the palette's numbers of the objects"


@dataclass(frozen=True)
class VocFiles(AnnotatedFiles):
    """`AnnotatedFiles` with masks in files that number the objects of an image, in the order of its xml file.

    Args:
        masks: file of each image.
        numbers: of the objects of each image in its mask.
        counts: objects in the xml file of each image, also those that are left out.
    """

    masks: Sequence[Path] = ()
    numbers: Sequence[Sequence[int]] = ()
    counts: Sequence[int] = ()

    def objects(self, index: int, annotations: Sequence[Annotation], size: tuple[int, int]) -> Objects:
        """The objects with their masks; one that is not in the mask file has an empty mask.

        Raises:
            UnreadableSample, BadMask: as `read_values`, and if the mask file has more objects.
        """
        values = read_values(self.masks[index], size, colors=False, hint=HINT)
        values[values == BORDER] = 0
        if values.max() > self.counts[index]:
            count = self.counts[index]
            raise BadMask(f"mask {self.masks[index]} has object {values.max()}, but its xml file has {count} objects")
        masks = rle.encode(np.stack([values == number for number in (0, *self.numbers[index])]))[1:]
        return replace(to_objects(annotations, size, masks=False), masks=masks, area=rle.area(masks))


@register_detect_source("voc", uses=("root", "classes"))
def open_voc(config: DetectDataConfig, split: str) -> AnnotatedFiles | None:
    """ROOT/JPEGImages, ROOT/Annotations and the lists ROOT/ImageSets/Main/train.txt, val.txt and perhaps test.txt; ROOT
    is a folder such as VOC2012. Without test.txt, val.txt is the test split and there is none for "val". Class names
    are VOC's, unless `data.classes` names others.

    Objects have masks if all images of the split are in SegmentationObject; a warning says so if only some are.
    `data.masks: true` takes the lists of ROOT/ImageSets/Segmentation instead, whose images are. Difficult objects are
    neither trained on nor counted, as crowds are.

    Raises:
        FileNotFoundError: a folder or a file is missing.
        ValueError: an xml file is cut off, or holds something else than expected.
    """
    lists = MASK_LISTS if config.masks else LISTS
    root = existing(config.root, XML, IMAGES, lists)
    own_test = (root / lists / "test.txt").is_file()
    if split == "val" and not own_test:
        return None
    path = root / lists / f"{'val' if split == 'test' and not own_test else split}.txt"
    names = config.classes or CLASSES[1:]
    labels = {name: label for label, name in enumerate(names)}
    left_out = LeftOut()
    images: list[AnnotatedImage] = []
    numbers, counts = [], []
    for line, stem in enumerate(read_lines(path), start=1):
        image, xml = root / IMAGES / f"{stem}.jpg", root / XML / f"{stem}.xml"
        for file in (image, xml):
            if not file.is_file():
                raise FileNotFoundError(f"{path}, line {line}: no file {file}")
        size, found = read_voc(xml, labels, left_out)
        images.append(AnnotatedImage(image, stem, [one for one in found if one is not None], size))
        numbers.append([number for number, one in enumerate(found, start=1) if one is not None])
        counts.append(len(found))
    left_out.warn(str(path))
    fields = (MODES[config.in_chans or 3], tuple(names), tuple(range(1, len(names) + 1)))
    masks = [root / MASKS / f"{image.path.stem}.png" for image in images]
    missing = [file for file in masks if not file.is_file()]
    if config.masks and missing:
        raise FileNotFoundError(f"{path}: {len(missing)} images have no mask; no file {missing[0]}")
    if config.masks is None and 0 < len(missing) < len(images):
        what = f"{len(missing)} of {len(images)} images have no mask, so none are read"
        warnings.warn(f"{path}: {what}; data.masks true takes the images of {root / MASK_LISTS}", stacklevel=2)
    if config.masks is False or missing or not images:
        return AnnotatedFiles(images, *fields, False)
    return VocFiles(images, *fields, True, masks, numbers, counts)
