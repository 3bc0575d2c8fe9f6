"""Image files with a mask file each, as a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pointmix.data.images.pairs import Pair
from pointmix.data.paths import read_lines
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.images.masks import MaskReader, mask_reader
from pointmix.data.segment.images.palettes import read_palette
from pointmix.data.segment.sample import LabeledImage
from pointmix.data.segment.settings import check_class_names
from pointmix.data.segment.source import Color
from pointmix.data.splits import shortened
from pointmix.io.formats.pillow import open_image
from pointmix.io.image_files import MODES, decode
from pointmix.utils.messages import counted


@dataclass(frozen=True)
class ImageFiles:
    """A `pointmix.data.segment.source.SegmentSource` of image and mask files.

    Args:
        pairs: the files.
        masks: reads the mask files.
        mode: Pillow's mode that images are converted to, "L" or "RGB".
        classes, palette: see `SegmentSource`.
    """

    pairs: Sequence[Pair]
    masks: MaskReader
    mode: str
    classes: tuple[str, ...]
    palette: Sequence[Color] | None
    categories: None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return str(self.pairs[index][0])

    def read(self, index: int) -> LabeledImage:
        """An image and its labels.

        Raises:
            UnreadableSample: if the image is damaged.
            UnreadableSample, BadMask: as `MaskReader.read`.
        """
        image_path, mask_path = self.pairs[index]
        image = decode(partial(open_image, image_path), self.mode)
        return LabeledImage(image, self.masks.read(mask_path, (image.height, image.width)))


def labeled_files(
    config: SegmentDataConfig,
    pairs: Sequence[Pair],
    *,
    classes: Sequence[str] | None = None,
    palette: Sequence[Color] | None = None,
) -> ImageFiles:
    """The source of these files; classes and labels as the configuration says.

    Args:
        classes, palette: those of the data set, if it has its own.

    Raises:
        ValueError: if there is no file or no class, or settings contradict each other.
    """
    if not pairs:
        raise ValueError(f"data.root {config.root}: no image in it")
    names, masks, colors = label_rules(config, classes=classes, palette=palette)
    return ImageFiles(pairs, masks, MODES[config.in_chans or 3], names, colors)


def label_rules(
    config: SegmentDataConfig, *, classes: Sequence[str] | None, palette: Sequence[Color] | None = None
) -> tuple[tuple[str, ...], MaskReader, Sequence[Color] | None]:
    """Class names, reader of the masks and colors of the classes. Arguments and errors: `labeled_files`."""
    file = None if config.palette_file is None else read_palette(config.palette_file)
    if file is not None:
        classes, palette = file.names, file.colors
    names = tuple(classes or ()) if config.classes is None else tuple(config.classes)
    if not names:
        what = "data.classes is empty" if config.classes is not None else "the class names are not known"
        raise ValueError(f"{what}; expected a file classes.txt in data.root with a name a line, or --data.classes")
    check_class_names(names)
    relabeled = config.label_map is not None or config.label_starts is not None
    if classes and tuple(classes) != names and sorted(classes) == sorted(names) and not relabeled:
        raise ValueError(
            f"data.classes has the classes of the data in another order, expected {', '.join(classes)}; to renumber "
            "classes set data.label_map too"
        )
    if classes and len(classes) != len(names) and not relabeled:
        raise ValueError(
            f"data.classes has {counted(len(names), 'name')}, the data have {counted(len(classes), 'class')}; to merge "
            "or leave out classes set data.label_map too"
        )
    if config.label_map is not None and max(config.label_map.values(), default=-1) + 1 != len(names):
        last = max(config.label_map.values(), default=-1)
        raise ValueError(f"data.label_map has classes up to {last}, expected 0 to {len(names) - 1}: {shortened(names)}")
    own = palette is not None and len(palette) == len(names) and (config.classes is None or not relabeled)
    masks = mask_reader(
        len(names),
        label_map=config.label_map,
        label_starts=config.label_starts,
        reduce_zero_label=config.reduce_zero_label,
        ignore_index=config.ignore_index,
        palette=file,
    )
    return names, masks, palette if own else None


def listed_classes(config: SegmentDataConfig, root: Path) -> list[str] | None:
    """The lines of ROOT/classes.txt if there is one and no setting names the classes."""
    path = root / "classes.txt"
    return read_lines(path) if config.classes is None and config.palette_file is None and path.exists() else None
