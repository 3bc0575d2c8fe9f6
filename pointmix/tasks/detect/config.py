"""The configuration of detection: boxes, masks and classes of the objects in images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pointmix.data.detect.config import DetectDataConfig
from pointmix.tasks.config import RunConfig
from pointmix.utils.ranges import COUNT

YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class DetectConfig(RunConfig):
    """Train a network to find the objects in images: a box, a class and a mask for each."""

    data: DetectDataConfig = field(default_factory=DetectDataConfig)
    """The images."""
    epochs: Annotated[int, COUNT] = 12
    """Epochs of the schedule, without its cool-down."""
    batch_size: Annotated[int, COUNT] = 16
    """Images a step and process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from pointmix.data.detect.resolve import resolve
        from pointmix.data.detect.source import DETECT_SOURCES

        if self.data.source in DETECT_SOURCES:  # otherwise opening the source fails
            resolve(self.data)  # refuses wrong values before anything is read

    @classmethod
    def root_source(cls, root: str) -> str:
        """coco, voc or yolo, by the files that a folder of these has, or yolo for a YAML file; else instances."""
        if Path(root).suffix in YAML:
            return "yolo"
        from pointmix.data.detect.sources import yolo

        layouts = {"annotations/*.json": "coco", "Annotations/*.xml": "voc", **dict.fromkeys(yolo.FILES, "yolo")}
        return next((source for files, source in layouts.items() if any(Path(root).glob(files))), "instances")

    @property
    def data_name(self) -> str:
        """The name of the data's folder, or of their source."""
        if not self.data.root:
            return self.data.source
        place = Path(self.data.root).resolve()
        return place.parent.name if place.suffix in YAML else place.name
