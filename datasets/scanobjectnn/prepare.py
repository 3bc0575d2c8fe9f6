"""Check ScanObjectNN's HDF5 files below DIR: counts, shapes, labels, every coordinate; print their SHA-256 sums.

    python datasets/scanobjectnn/prepare.py data/scanobjectnn

With --archive h5_files.zip the files of the three forms are taken out of the archive first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

COUNTS = {  # training and test clouds
    "obj_only": (2309, 581),
    "obj_bg": (2309, 581),
    "pb_t50_rs": (11416, 2882),
}
POINTS = 2048


def prepare(root: Path, archive: Path | None) -> None:
    """Extract the files from the archive, if one is given, and check all files that exist.

    Raises:
        FileNotFoundError, ValueError: in one line.
    """
    from pointmix.data.clouds.sources.scanobjectnn import CLASSES, FILES, open_scanobjectnn
    from pointmix.data.clouds.verify import extract, verify_clouds

    if archive is not None:
        names = [f"{f}/{split}_objectdataset{e}.h5" for f, e in FILES.values() for split in ("training", "test")]
        extract(archive, root, {name: name for name in names})
    found = 0
    for variant, counts in COUNTS.items():
        try:
            train, test = (
                open_scanobjectnn(root, split=s, variant=variant, classes=CLASSES) for s in ("train", "test")
            )
        except FileNotFoundError as error:
            print(f"{variant}: not there ({str(error).partition(';')[0]})")
            continue
        for files, count in zip((train, test), counts, strict=True):
            for line in verify_clouds(files, count=count, points=POINTS):
                print(line)
        print(f"{variant}: complete")
        found += 1
    if not found:
        raise FileNotFoundError(f"{root} holds no form of ScanObjectNN; see datasets/scanobjectnn/README.md")


def main() -> None:
    """Command line; bad input exits with one line and code 2."""
    parser = argparse.ArgumentParser(description="Check the HDF5 files of ScanObjectNN.")
    parser.add_argument("root", type=Path, metavar="DIR", help="folder that has or gets main_split and main_split_nobg")
    parser.add_argument("--archive", type=Path, help="an h5_files.zip to take them from")
    args = parser.parse_args()
    try:
        prepare(args.root, args.archive)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
