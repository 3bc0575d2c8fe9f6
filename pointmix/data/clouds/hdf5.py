"""Labeled clouds in HDF5 files, read cloud by cloud: the layouts of ScanObjectNN and of ModelNet40.

Both keep `data` (n, N, 3) positions and `label` (n,) integers in each file; `mask` (n, N), -1 for background, `rgb` and
`normal` (n, N, 3) may be there too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pointmix.data.images.source import UnreadableImage
from pointmix.data.names import read_names
from pointmix.io.images import full_color
from pointmix.io.open_hdf5 import open_hdf5
from pointmix.io.open_image import check_numbers, check_read
from pointmix.pointset import PointSet

FEATURES = {"rgb": 3, "normal": 3}  # key -> channels
VARIANTS = {  # of ScanObjectNN -> folder and the end of the file names
    "obj_only": ("main_split_nobg", ""),
    "obj_bg": ("main_split", ""),
    "pb_t50_rs": ("main_split", "_augmentedrot_scale75"),
}
SCANOBJECTNN = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow", "sink",
    "sofa", "toilet",
)  # fmt: skip
MODELNET40 = (
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain",
    "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel", "monitor",
    "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool", "table",
    "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
)  # fmt: skip


class UnreadableCloud(UnreadableImage):
    """A cloud that cannot be read or holds NaN; the message is the reason alone, in one line."""


class CloudFiles:
    """The labeled clouds of some files, one after the other. Every process opens the files for itself.

    Args:
        paths: the files. Shapes, types and labels are checked here, coordinates when they are read.
        classes: names in the order of the labels. None: those in the files' attribute `classes` (joined by commas),
            else the labels themselves, which must then be 0 to the last without a gap.
        features: what becomes `feat`: "none", "rgb" (in [0, 1], by the type or else the range of the whole file, see
            `pointmix.io.images.full_color`) or "normal".
        first: read this many points of each cloud, the first ones. None: all.
        cache: read everything now and keep it in memory.

    Attributes:
        classes, targets: names, and labels (n,) int64.
        points: points of each cloud in the files; the least number if they differ.
        written: names in the files' attribute, or None.
        full: of each file, what its features are divided by.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if a file is cut off or no HDF5, lacks a key, or holds other shapes, types or labels; it names file
            and key.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        classes: Sequence[str] | None = None,
        features: str = "none",
        first: int | None = None,
        cache: bool = False,
    ) -> None:
        self.paths, self.features, self.first = [str(path) for path in paths], features, first
        self._open: tuple[int, dict[int, list[h5py.Dataset]]] = (-1, {})  # process, file -> what is read of it
        labels, sizes, written, self.full = [], [], set(), []
        for path in self.paths:
            with open_hdf5(path) as file:
                label, points = _checked(file, path, features)
                labels.append(label)
                sizes.append(points)
                self.full.append(_full(file, features))
                joined = file.attrs.get("classes")
                joined = joined.decode() if isinstance(joined, bytes) else joined
                if not isinstance(joined, str | None):
                    raise ValueError(f"{path}: the attribute classes must be text, names joined by commas")
                written.add(joined)
        self.points = min(sizes)
        self.targets: Int[np.ndarray, " n"] = np.concatenate(labels)
        self.starts = np.cumsum([0, *map(len, labels)])
        joined = written.pop() if len(written) == 1 else None
        self.written = None if joined is None else joined.split(",")
        self.classes = _class_names(classes or self.written, self.targets, ", ".join(self.paths))
        self._cached = [self._whole(place) for place in range(len(self.paths))] if cache else None

    def __len__(self) -> int:
        return len(self.targets)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": (-1, {})}  # a worker that is spawned opens its own

    def name(self, index: int) -> str:
        """FILE[ROW]"""
        place, row = self._place(index)
        return f"{self.paths[place]}[{row}]"

    def read(self, index: int) -> PointSet:
        """One cloud: positions in double precision where the file has it, all else float32.

        Raises:
            UnreadableCloud: if it cannot be read or a number is not finite.
        """
        place, row = self._place(index)
        rows = self._rows(place, row) if self._cached is None else [array[row] for array in self._cached[place]]
        xyz = np.array(rows[0], dtype=np.float64 if rows[0].dtype.itemsize >= 8 else np.float32)
        feat = np.zeros((len(xyz), 0), dtype=np.float32)
        if len(rows) > 1:
            feat = (rows[1].astype(np.float64) / self.full[place]).astype(np.float32)
        for key, values in (("data", xyz), (self.features, feat)):
            if not np.isfinite(values).all():
                bad = int((~np.isfinite(values)).any(1).sum())
                raise UnreadableCloud(f"{key} holds NaN or infinite values at {bad} of {len(values)} points")
        return PointSet(torch.from_numpy(xyz), torch.from_numpy(feat), torch.tensor([0, len(xyz)]))

    def on_object(self, index: int) -> Bool[Tensor, "N"] | None:
        """Which points of a cloud are on the object rather than background, or None in a file without `mask`."""
        place, row = self._place(index)
        with open_hdf5(self.paths[place]) as file:
            return torch.from_numpy(file["mask"][row, : self.first] != -1) if "mask" in file else None

    def _place(self, index: int) -> tuple[int, int]:
        place = int(np.searchsorted(self.starts, index, side="right")) - 1
        return place, int(index - self.starts[place])

    def _rows(self, place: int, rows: int | slice) -> list[np.ndarray]:
        """`data`, and the features if there are any, of one cloud or several of a file."""
        try:
            return [array[rows, : self.first] for array in self._arrays(place)]
        except OSError as error:
            raise UnreadableCloud(str(error).splitlines()[0]) from error

    def _whole(self, place: int) -> list[np.ndarray]:
        try:
            for array in self._arrays(place):
                check_read(array, array.shape, f"{self.paths[place]}: {array.name}")
            return self._rows(place, slice(None))
        except UnreadableCloud as error:
            raise ValueError(f"{self.paths[place]} cannot be read to its end: {error}") from error

    def _arrays(self, place: int) -> list[h5py.Dataset]:
        process, files = self._open
        if process != os.getpid():  # open files of a process that forked share their place with it
            files = {}
            self._open = (os.getpid(), files)
        if place not in files:
            file = open_hdf5(self.paths[place])
            files[place] = [file[key] for key in ("data", self.features) if key != "none"]
        return files[place]


def _checked(file: h5py.File, path: str, features: str) -> tuple[Int[np.ndarray, " n"], int]:
    """The labels of a file and its points a cloud, everything but the values checked."""
    wanted = ["data", "label"] + ([features] if features != "none" else [])
    for key in wanted:
        if key not in file:
            raise ValueError(f"{path} has no key {key!r}; it has {', '.join(sorted(file)) or 'none'}")
        if not isinstance(file[key], h5py.Dataset):
            raise ValueError(f"{path}: {key} is a group, expected an array")
        shape = file[key].shape or ()
        check_read(file[key], shape if key == "label" else shape[1:], f"{path}: {key}")
    data, label = file["data"], file["label"]
    if data.ndim != 3 or data.shape[2] != 3 or 0 in data.shape or data.dtype.kind != "f":
        raise ValueError(f"{path}: data must be (n, N, 3) floating point, got {data.shape} {data.dtype}")
    if label.shape not in ((len(data),), (len(data), 1)) or label.dtype.kind not in "iu":
        raise ValueError(f"{path}: label must be ({len(data)},) integers, got {label.shape} {label.dtype}")
    kinds = "fui" if features == "rgb" else "fu"
    if features != "none" and (file[features].shape != data.shape or file[features].dtype.kind not in kinds):
        found = file[features]
        raise ValueError(f"{path}: {features} must be {data.shape} numbers, got {found.shape} {found.dtype}")
    mask = check_numbers(f"{path}: mask", file["mask"]) if "mask" in file else None
    if mask is not None and mask.shape != data.shape[:2]:
        raise ValueError(f"{path}: mask must be {data.shape[:2]}, got {mask.shape}")
    if mask is not None:
        check_read(mask, mask.shape[1:], f"{path}: mask")
    try:
        return label[:].reshape(-1).astype(np.int64), data.shape[1]
    except OSError as error:
        raise ValueError(f"{path}: label cannot be read: {str(error).splitlines()[0]}") from error


def _full(file: h5py.File, features: str) -> float:
    """What brings the features of a file to [0, 1]; 1 for those that have no range, such as normals in floats."""
    if features == "none":
        return 1.0
    if features != "rgb" and file[features].dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        return 1.0
    try:
        return full_color(file[features])
    except ValueError as error:
        raise ValueError(f"{file.filename}: {features}: {error}") from error


def _class_names(classes: Sequence[str] | None, targets: Int[np.ndarray, " n"], where: str) -> list[str]:
    low, high = int(targets.min()), int(targets.max())
    if classes is None:
        if not np.array_equal(np.unique(targets), np.arange(high + 1)):
            raise ValueError(
                f"{where}: labels {np.unique(targets).tolist()} are not 0 to {high} without a gap; give the classes"
            )
        return [str(label) for label in range(high + 1)]
    if low < 0 or high >= len(classes):
        wrong = low if low < 0 else high
        raise ValueError(f"{where}: label {wrong} is out of range, expected 0 to {len(classes) - 1}")
    return list(classes)


# ---- where the files are --------------------------------------------------------------------------------------------


def open_scanobjectnn(
    root: str | Path,
    *,
    split: str,
    variant: str,
    classes: Sequence[str] | None = None,
    features: str = "none",
    first: int | None = None,
    cache: bool = False,
) -> CloudFiles:
    """The 'train' or 'test' split of one of the `VARIANTS`, below ROOT or ROOT/h5_files.

    Files that hold all 15 classes have their names; see `CloudFiles` for others, for the arguments and for the errors.
    """
    folder, end = VARIANTS[variant]
    name = f"{folder}/{'training' if split == 'train' else 'test'}_objectdataset{end}.h5"
    path = next((p for p in (Path(root, name), Path(root, "h5_files", name)) if p.is_file()), None)
    if path is None:
        there = [v for v, (f, e) in VARIANTS.items() if any(Path(root).glob(f"**/{f}/*_objectdataset{e}.h5"))]
        hint = f"; data.variant {' or '.join(there)} is there" if there else ""
        raise FileNotFoundError(f"no file {Path(root, name)}{hint}")
    files = CloudFiles([path], classes=classes, features=features, first=first, cache=cache)
    if classes is None and files.classes == [str(i) for i in range(len(SCANOBJECTNN))]:
        files.classes = list(SCANOBJECTNN)
    return files


def open_modelnet40(
    root: str | Path,
    *,
    split: str,
    classes: Sequence[str] | None = None,
    features: str = "none",
    first: int | None = None,
    cache: bool = False,
) -> CloudFiles:
    """The 'train' or 'test' split of modelnet40_ply_hdf5_2048, in ROOT or the folder of that name in ROOT.

    The files are those that ROOT/SPLIT_files.txt lists, else ROOT/ply_data_SPLIT*.h5; class names are the lines of
    ROOT/shape_names.txt, else the 40 that everybody uses. See `CloudFiles` for the arguments and the errors.
    """
    root = next((p for p in (Path(root, "modelnet40_ply_hdf5_2048"), Path(root)) if p.is_dir()), None) or Path(root)
    listed, names = root / f"{split}_files.txt", root / "shape_names.txt"
    if listed.is_file():
        paths = [root / Path(line).name for line in read_names(listed)]
    else:
        paths = sorted(root.glob(f"ply_data_{split}*.h5"))
    if not paths:
        raise FileNotFoundError(f"no {root}/ply_data_{split}*.h5, nor any file named in {listed}")
    if classes is None:
        classes = (read_names(names) if names.is_file() else []) or MODELNET40
    return CloudFiles(paths, classes=classes, features=features, first=first, cache=cache)
