"""ModelNet40: 40 classes of CAD models, sampled, in HDF5 files (modelnet40_ply_hdf5_2048)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.hdf5 import CloudFiles, check_points, file_options
from pointmix.data.clouds.source import register_source, require_root
from pointmix.data.paths import read_lines

CLASSES = (
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain",
    "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel", "monitor",
    "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool", "table",
    "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
)  # fmt: skip


def open_modelnet40(
    root: str | Path,
    *,
    split: str,
    classes: Sequence[str] | None = None,
    features: Sequence[str] = (),
    first: int | None = None,
) -> CloudFiles:
    """The 'train' or 'test' split, in ROOT or in its folder modelnet40_ply_hdf5_2048.

    The files are those listed in ROOT/SPLIT_files.txt, else ROOT/ply_data_SPLIT*.h5; class names are the lines of
    ROOT/shape_names.txt, else the usual 40. See `CloudFiles` for the arguments and the errors.

    Raises:
        FileNotFoundError: if there is no file.
    """
    root = next((p for p in (Path(root, "modelnet40_ply_hdf5_2048"), Path(root)) if p.is_dir()), None) or Path(root)
    listed, names = root / f"{split}_files.txt", root / "shape_names.txt"
    if listed.is_file():
        paths = [root / Path(line).name for line in read_lines(listed)]
    else:
        paths = sorted(root.glob(f"ply_data_{split}*.h5"))
    if not paths:
        raise FileNotFoundError(f"no {root}/ply_data_{split}*.h5, nor any file named in {listed}")
    if classes is None:
        classes = (read_lines(names) if names.is_file() else []) or CLASSES
    return CloudFiles(paths, classes=classes, features=features, first=first)


@register_source("modelnet40", check=require_root(see="datasets/modelnet40"), uses=(), defaults={"up": "y"})
def open_split(config: PointDataConfig, split: str) -> CloudFiles:
    """A split as a configuration asks for it."""
    files = open_modelnet40(config.root or "", split=split, **file_options(config))
    check_points(config, files)
    return files
