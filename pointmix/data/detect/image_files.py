"""Image files with the annotations of their objects, as a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pointmix.data.detect.annotations import Annotation, to_objects
from pointmix.data.detect.sample import ObjectImage, Objects
from pointmix.io.errors import BadMask
from pointmix.io.formats.pillow import open_image
from pointmix.io.image_files import decode, read_size


@dataclass(frozen=True)
class AnnotatedImage:
    """An image file.

    Args:
        path: the file.
        image_id: see `ObjectImage`.
        annotations: its objects, each with an area in the image.
        size: H, W as the annotations say it; None if they are in sides of the image.
    """

    path: Path
    image_id: int | str
    annotations: Sequence[Annotation]
    size: tuple[int, int] | None


@dataclass(frozen=True)
class AnnotatedFiles:
    """A `pointmix.data.detect.source.DetectSource` of image files.

    Args:
        images: the files.
        mode: Pillow's mode that images are converted to, "L" or "RGB".
        classes, category_ids, has_masks: see `DetectSource`; with masks all annotations have a segment.

    Raises:
        ValueError: if two images have one id.
    """

    images: Sequence[AnnotatedImage]
    mode: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    has_masks: bool

    def __post_init__(self) -> None:
        seen: set[int | str] = set()
        for image in self.images:
            if image.image_id in seen:
                raise ValueError(f"the image {image.path} is named twice, expected each image once")
            seen.add(image.image_id)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return str(self.images[index].path)

    def size(self, index: int) -> tuple[int, int]:
        """H, W of an image.

        Raises:
            UnreadableSample: if neither the annotations nor the file tell.
        """
        return self.images[index].size or read_size(self.images[index].path)

    def has_objects(self, index: int) -> bool:
        return any(not one.crowd for one in self.images[index].annotations)

    def read(self, index: int) -> ObjectImage:
        """An image and its objects.

        Raises:
            UnreadableSample: if the image is damaged.
            BadMask: if the annotations are of an image of another size.
        """
        file = self.images[index]
        image = decode(partial(open_image, file.path), self.mode)
        size, annotations = (image.height, image.width), file.annotations
        if file.size is None:
            annotations = [one.scaled(*size) for one in annotations]
        elif file.size != size:
            found, expected = (f"{height}x{width}" for height, width in (size, file.size))
            raise BadMask(f"{file.path} is {found}, its annotations say {expected} (rows x columns)")
        return ObjectImage(image, self.objects(index, annotations, size), file.image_id)

    def objects(self, index: int, annotations: Sequence[Annotation], size: tuple[int, int]) -> Objects:
        """The objects of an image of H, W from its annotations, in its pixels."""
        return to_objects(annotations, size, masks=self.has_masks)
