"""Check ModelNet40's HDF5 files in DIR: counts, shapes, labels, every coordinate; print their SHA-256 sums.

    python datasets/modelnet40/prepare.py data/modelnet40

With --archive modelnet40_ply_hdf5_2048.zip the files are taken out of the archive first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

COUNTS = {"train": 9840, "test": 2468}  # clouds
POINTS = 2048
FOLDER = "modelnet40_ply_hdf5_2048"
FILES = (
    *(f"ply_data_train{i}.h5" for i in range(5)),
    *(f"ply_data_test{i}.h5" for i in range(2)),
    "shape_names.txt",
    "train_files.txt",
    "test_files.txt",
)


def prepare(root: Path, archive: Path | None) -> None:
    """Extract the files from the archive, if one is given, and check them.

    Raises:
        FileNotFoundError, ValueError: in one line.
    """
    from pointmix.data.clouds.sources.modelnet40 import CLASSES, open_modelnet40
    from pointmix.data.clouds.verify import extract, verify_clouds

    if archive is not None:
        extract(archive, root, {f"{FOLDER}/{name}": f"{FOLDER}/{name}" for name in FILES})
    for split, count in COUNTS.items():
        files = open_modelnet40(root, split=split)
        if tuple(files.classes) != CLASSES:
            raise ValueError(f"shape_names.txt below {root} does not name the 40 classes in their order")
        for line in verify_clouds(files, count=count, points=POINTS):
            print(line)
    print("modelnet40: complete")


def main() -> None:
    """Command line; bad input exits with one line and code 2."""
    parser = argparse.ArgumentParser(description="Check the HDF5 files of ModelNet40.")
    parser.add_argument("root", type=Path, metavar="DIR", help=f"folder that has or gets {FOLDER}, or that folder")
    parser.add_argument("--archive", type=Path, help=f"a {FOLDER}.zip to take it from")
    args = parser.parse_args()
    try:
        prepare(args.root, args.archive)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
