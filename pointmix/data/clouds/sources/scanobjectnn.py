"""ScanObjectNN: 15 classes of scanned objects in HDF5 files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.hdf5 import CloudFiles, check_points, file_options
from pointmix.data.clouds.source import register_source, require_root

CLASSES = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow", "sink",
    "sofa", "toilet",
)  # fmt: skip
FILES = {  # variant -> folder and suffix of the file names
    "obj_only": ("main_split_nobg", ""),
    "obj_bg": ("main_split", ""),
    "pb_t50_rs": ("main_split", "_augmentedrot_scale75"),
}


def open_scanobjectnn(
    root: str | Path,
    *,
    split: str,
    variant: str,
    classes: Sequence[str] | None = None,
    features: Sequence[str] = (),
    first: int | None = None,
) -> CloudFiles:
    """The 'train' or 'test' split of a variant, below ROOT or ROOT/h5_files.

    Files with all 15 classes get their names; see `CloudFiles` for others, for the arguments and for the errors.

    Raises:
        FileNotFoundError: if the file is missing; names the variants that are there.
    """
    folder, end = FILES[variant]
    name = f"{folder}/{'training' if split == 'train' else 'test'}_objectdataset{end}.h5"
    path = next((p for p in (Path(root, name), Path(root, "h5_files", name)) if p.is_file()), None)
    if path is None:
        there = [v for v, (f, e) in FILES.items() if any(Path(root).glob(f"**/{f}/*_objectdataset{e}.h5"))]
        hint = f"; data.variant {' or '.join(there)} is there" if there else ""
        raise FileNotFoundError(f"no file {Path(root, name)}{hint}")
    files = CloudFiles([path], classes=classes, features=features, first=first)
    if classes is None and files.classes == [str(i) for i in range(len(CLASSES))]:
        files.classes = list(CLASSES)
    return files


@register_source("scanobjectnn", check=require_root(see="datasets/scanobjectnn"), uses=(), defaults={"up": "y"})
def open_split(config: PointDataConfig, split: str) -> CloudFiles:
    """A split as a configuration asks for it."""
    files = open_scanobjectnn(config.root or "", split=split, variant=config.variant, **file_options(config))
    check_points(config, files)
    return files
