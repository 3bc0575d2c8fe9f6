"""A list of labeled clouds, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pointmix.data.segment.clouds.labels import LabelRule
from pointmix.data.segment.sample import LabeledCloud
from pointmix.io import FoundCloud
from pointmix.io.errors import BadMask


@dataclass(frozen=True)
class LabeledClouds:
    """Labeled clouds in files or folders.

    Args:
        paths: a file or folder each.
        read_path: reads one.
        rule: from labels of the files to classes.
        classes, palette: see `SegmentSource`.
        wanted: where labels were looked for, for messages.
    """

    paths: Sequence[Path]
    read_path: Callable[[Path], FoundCloud]
    rule: LabelRule
    classes: Sequence[str]
    wanted: str
    palette: Sequence[tuple[int, int, int]] | None = None
    categories: Mapping[str, Sequence[int]] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def read(self, index: int) -> LabeledCloud:
        """One cloud.

        Raises:
            UnreadableSample: if it cannot be read.
            BadMask: if it has no labels, another number of them than of points, or one beyond the classes.
        """
        found, path = self.read_path(self.paths[index]), self.paths[index]
        if found.label is None:
            has = ", ".join(found.features) or "positions only"
            raise BadMask(f"{path}: it has no labels, expected {self.wanted}; found {has}")
        label = self.rule.classes_of(found.label, len(found.pos), str(path))
        return LabeledCloud(found.pos, found.features, label, color_scale=found.color_scale)
